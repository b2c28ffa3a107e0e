"""Unit: what signs a request: AWS's signature beside botocore's own, tokens that end, functions that fail."""

from __future__ import annotations

import dataclasses
import datetime
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import LMAuthError, LMNotConfiguredError
from dspex.lm.clouds.aws_identity import AwsIdentity
from dspex.lm.clouds.google_tokens import google_signer, has_google_auth
from dspex.lm.clouds.signer import TokenSigner, Unsigned, is_jwt
from dspex.lm.clouds.sigv4 import AwsKeys, signed_headers
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.cloud_endpoint import CloudEndpoint
from tests.support.lm.requests import ASK

KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
UNSIGNED = Unsigned("http://h/v1", "h", "application/json", b"{}")
NOW = datetime.datetime(2026, 11, 30, 12, 34, 56, tzinfo=datetime.UTC)


@pytest.fixture
def endpoint() -> Iterator[CloudEndpoint]:
    made = CloudEndpoint()
    yield made
    made.close()


def test_signatures_equal_botocores() -> None:
    """unit: of paths, queries, headers and bodies of all kinds, with and without a session."""
    auth = pytest.importorskip("botocore.auth")
    awsrequest, credentials = pytest.importorskip("botocore.awsrequest"), pytest.importorskip("botocore.credentials")
    drawn = random.Random(42)
    paths = ["", "/", "/a", "/a/b/", "//a//b", "/a/./b/../c", "/m:0/x", "/%C3%A9/x%2Fy", "/a b", "/~x/-._"]
    queries = ["", "a=1", "b=2&a=1", "a=&b", "a=x%20y&a=b", "%C3%A9=1", "api-version=2024-01-01"]
    for _ in range(300):
        keys = AwsKeys("AKID", "secret/+", drawn.choice([None, "token/+="]))
        url = f"https://h.example{drawn.choice(paths)}"
        query = drawn.choice(queries)
        url += f"?{query}" if query else ""
        body = drawn.randbytes(drawn.randint(0, 200))
        headers = [("host", "h.example"), ("content-type", drawn.choice(["application/json", "a  b"]))]
        made = dict(signed_headers(keys, url, headers, body, region="eu-west-1", service="bedrock", now=NOW))
        signer = auth.SigV4Auth(credentials.Credentials("AKID", "secret/+", keys.session_token), "bedrock", "eu-west-1")
        request = awsrequest.AWSRequest("POST", url, data=body, headers={**dict(headers), **made})
        del request.headers["authorization"]
        request.context["timestamp"] = made["x-amz-date"]
        text = signer.string_to_sign(request, signer.canonical_request(request))
        assert made["authorization"].endswith(f"Signature={signer.signature(text, request)}"), (url, headers)


def test_a_known_signature() -> None:
    """unit: of AWS's own test suite for the algorithm ("post-vanilla"), where nothing else is installed."""
    keys = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    now = datetime.datetime(2015, 8, 30, 12, 36, tzinfo=datetime.UTC)
    headers = [("host", "example.amazonaws.com")]
    made = dict(
        signed_headers(
            keys, "https://example.amazonaws.com/", headers, b"", region="us-east-1", service="service", now=now
        )
    )
    expected = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
    assert made["authorization"].endswith(f"Signature={expected}")
    assert "wJalr" not in repr(KEYS)


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        ("eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2ln", True),
        ("a.b.c", False),
        ("sk-123", False),
        ("", False),
        ("é.b.c", False),
    ],
)
def test_tokens_are_told_from_keys(given: str, is_one: bool) -> None:
    """unit: Azure takes both, in different headers."""
    assert is_jwt(given) is is_one


@pytest.mark.parametrize("made", ["", None, 5, "two\nlines", "é"])
def test_a_token_that_is_none_is_an_error(made: Any) -> None:
    """unit: nothing is sent with it."""
    with pytest.raises(LMAuthError, match="none"):
        TokenSigner(lambda: made).sign(UNSIGNED)


def test_a_function_that_fails_shows_nothing_of_its_error() -> None:
    """unit: its text may hold what it was given."""

    def fails() -> str:
        raise RuntimeError("canary-secret")

    with pytest.raises(LMAuthError, match="RuntimeError") as caught:
        TokenSigner(fails).sign(UNSIGNED)
    assert "canary" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__ and ''}"


def test_each_attempt_gets_a_token_of_its_own(
    endpoint: CloudEndpoint, client: LMClient, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: a request that is sent again is signed again."""
    tokens = iter(["token-one", "token-two"])
    endpoint.answers.append((503, {"error": {"message": "later"}}))
    lm = LM(
        "azure/d",
        api_base=endpoint.url,
        azure_ad_token_provider=lambda: next(tokens),
        cache=False,
        structured_outputs=False,
    )
    assert client.complete(lm, ASK).text
    assert [each.headers["authorization"] for each in endpoint.taken()] == ["Bearer token-one", "Bearer token-two"]


def test_a_waiting_token_holds_no_event_loop(endpoint: CloudEndpoint, client: LMClient) -> None:
    """collaboration: it is got on another thread."""
    import asyncio

    threads: list[int] = []

    def token() -> str:
        threads.append(threading.get_ident())
        return "token"

    async def ask() -> None:
        lm = LM("azure/d", api_base=endpoint.url, azure_ad_token_provider=token, cache=False)
        assert (await client.acomplete(lm, ASK)).text
        await client.aclose()

    asyncio.run(ask())
    assert threads and threads[0] != threading.get_ident()


def test_profiles_are_read_by_botocore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: where it is installed; a profile that is none is no secret's leak."""
    pytest.importorskip("botocore")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "credentials"
    file.write_text("[work]\naws_access_key_id = AKID\naws_secret_access_key = canary\naws_session_token = t\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert AwsIdentity("work").keys() == AwsKeys("AKID", "canary", "t")
    with pytest.raises(LMNotConfiguredError):
        AwsIdentity("another").keys()


def test_without_any_identity_nothing_is_sent(
    endpoint: CloudEndpoint, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: the error says what to give."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(LMNotConfiguredError, match="AWS_ACCESS_KEY_ID"):
        client.complete(LM("bedrock-chat/m", aws_region_name="us-east-1", api_base=endpoint.url), ASK)
    with pytest.raises(LMNotConfiguredError, match="AZURE_OPENAI_API_KEY"):
        client.complete(LM("azure/m", api_base=endpoint.url), ASK)
    assert endpoint.taken() == []


has_google = pytest.mark.skipif(not has_google_auth(), reason="google-auth is an extra")


@has_google
def test_a_service_accounts_token_is_got_and_renewed(endpoint: CloudEndpoint, client: LMClient, tmp_path: Path) -> None:
    """collaboration: from the account's own token_uri, once for many requests, and again when it ends."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    granted: list[str] = []

    def grant(asked: Any) -> dict[str, Any]:
        assert b"grant_type" in asked.body and b"assertion" in asked.body
        granted.append(f"ya29.token-{len(granted)}")
        return {"access_token": granted[-1], "expires_in": 3600, "token_type": "Bearer"}

    endpoint.routes["/token"] = grant
    info = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "i",
        "private_key": pem,
        "client_email": "a@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{endpoint.url}/token",
    }
    file = tmp_path / "account.json"
    file.write_text(json.dumps(info))
    for given in (str(file), json.dumps(info), info, file):
        granted.clear()
        lm = LM(
            "vertex/gemini-2.5-pro", vertex_project="p", vertex_credentials=given, api_base=endpoint.url, cache=False
        )
        assert lm == lm.replace()
        for _ in range(3):
            assert client.complete(lm, ASK).text
        asked = endpoint.taken()
        assert [each.headers["authorization"] for each in asked] == ["Bearer ya29.token-0"] * 3
        assert pem in lm.secrets and "PRIVATE" not in f"{lm!r} {lm.account!r} {lm.to_wire()}"
    signer = google_signer(info)
    assert dict(signer.sign(UNSIGNED).headers)["authorization"].startswith("Bearer ya29.")
    assert signer.is_ready and "ya29" not in repr(signer.sign(UNSIGNED))
    assert dataclasses.is_dataclass(signer.sign(UNSIGNED))


@has_google
def test_googles_refusal_is_an_error_of_its_own(endpoint: CloudEndpoint, client: LMClient) -> None:
    """collaboration: an identity service that gives no token."""
    endpoint.routes["/token"] = lambda asked: {"error": "invalid_grant canary"}
    info = {
        "type": "authorized_user",
        "client_id": "c",
        "client_secret": "canary-secret",
        "refresh_token": "canary-refresh",
        "token_uri": f"{endpoint.url}/token",
    }
    lm = LM("vertex/g", vertex_project="p", vertex_credentials=info, api_base=endpoint.url, cache=False, retries=0)
    with pytest.raises(LMAuthError) as caught:
        client.complete(lm, ASK)
    assert "canary" not in str(caught.value) and endpoint.taken() == []


def test_without_google_auth_a_token_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: the error says what to install, when the LM is made."""
    from dspex.errors import SettingsError
    from dspex.lm.clouds import google_tokens

    monkeypatch.setattr(google_tokens, "has_google_auth", lambda: False)
    with pytest.raises(SettingsError, match="google-auth"):
        LM("vertex/g", vertex_project="p", vertex_credentials={"type": "service_account"})
    with pytest.raises(LMNotConfiguredError, match="api_key="):
        google_signer(None).sign(UNSIGNED)
