"""Collaboration: whom an LM's client trusts, and how it shows itself: real handshakes with certificates of this run."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import LMCertificateError, LMTransportError, LMUnsupportedFeatureError, SettingsError
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.answering_server import AnsweringServer
from tests.support.lm.requests import PLAIN, Way

trustme = pytest.importorskip("trustme")
KEY = "canary-4242424242-canary"
PASSWORD = "key-password-4242"
LATER = datetime.datetime(2090, 1, 1)
CHOSEN = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
Serve = Callable[..., AnsweringServer]


@pytest.fixture(scope="module")
def ca() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(ca: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve(ca: Any) -> Iterator[Serve]:
    made: list[AnsweringServer] = []

    def make(name: str = "127.0.0.1", *, wants: Any = None, **issued: Any) -> AnsweringServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name, **issued).configure_cert(context)
        if wants is not None:
            wants.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        made.append(AnsweringServer(tls=context))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _lm(server: AnsweringServer, **options: Any) -> LM:
    base = f"https://127.0.0.1:{server.port}/v1"
    return LM("openai/m", api_base=base, api_key=KEY, cache=False, **{"retries": 2, "timeout": 20, **options})


@pytest.fixture(params=PLAIN)
def way(request: pytest.FixtureRequest) -> Way:
    return PLAIN[request.param]


@pytest.mark.parametrize("option", ["ssl_verify", "verify"])
def test_authority_of_an_lm(option: str, way: Way, serve: Serve, bundle: Path, client: LMClient) -> None:
    """collaboration: by the names that LiteLLM and requests have for it; the connection is kept."""
    server = serve()
    lm = _lm(server, **{option: bundle})
    assert "fine" in way(client, lm)
    assert "fine" in way(client, lm)


@pytest.mark.parametrize("name", CHOSEN[:3])
def test_authority_of_the_environment(
    name: str, way: Way, serve: Serve, bundle: Path, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: read when the record is made."""
    monkeypatch.setenv(name, str(bundle))
    lm = _lm(serve())
    monkeypatch.delenv(name)
    assert "fine" in way(client, lm)


@pytest.mark.parametrize("name", [None, "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
def test_authorities_in_a_folder(
    name: str | None, serve: Serve, bundle: Path, client: LMClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: as OpenSSL names them, by the digest of their subject."""
    import subprocess

    digest = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(bundle)], capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / f"{digest}.0").write_bytes(bundle.read_bytes())
    if name is not None:
        monkeypatch.setenv(name, str(tmp_path))
    lm = _lm(serve(), **({"ssl_verify": tmp_path} if name is None else {}))
    assert client.complete(lm, [{"role": "user", "content": "x"}]).text == "fine"


def test_lms_own_authority_goes_before_the_environments(
    serve: Serve, bundle: Path, client: LMClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: and so does REQUESTS_CA_BUNDLE before SSL_CERT_FILE."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    server = serve()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    assert "fine" in PLAIN["complete"](client, _lm(server, ssl_verify=str(bundle)))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with pytest.raises(LMCertificateError):
        PLAIN["complete"](client, _lm(server))


@pytest.mark.parametrize(
    ("name", "issued", "advice"),
    [
        ("127.0.0.1", {"trusted": False}, r"ssl_verify='path/to/ca\.pem'"),
        ("other.example", {}, "another host"),
        ("127.0.0.1", {"not_after": datetime.datetime(2020, 1, 1)}, "expired"),
        (
            "127.0.0.1",
            {"not_before": datetime.datetime(2090, 1, 1), "not_after": datetime.datetime(2099, 1, 1)},
            "clock",
        ),
    ],
    ids=["unknown", "host", "expired", "future"],
)
def test_certificate_that_is_refused_is_told_once(
    name: str, issued: dict[str, Any], advice: str, way: Way, serve: Serve, bundle: Path, client: LMClient
) -> None:
    """collaboration: what is wrong and what to do; not tried again, and the circuit stays closed."""
    trusted = issued.get("trusted", True)
    issued = {name: value for name, value in issued.items() if name != "trusted"}
    server = serve(name, **issued)
    lm = _lm(server, **({"ssl_verify": bundle} if trusted else {}))
    for _ in range(12):
        with pytest.raises(LMCertificateError, match=advice) as caught:
            way(client, lm)
    assert caught.value.retryable == "no" and caught.value.model == "openai/m"
    assert server.accepted == 12 and server.heads == []


def test_certificate_error_fails_over(serve: Serve, bundle: Path, client: LMClient) -> None:
    """collaboration: another endpoint may do better."""
    lm = _lm(serve("other.example"), ssl_verify=bundle, fallbacks=_lm(serve(), ssl_verify=bundle))
    assert PLAIN["complete"](client, lm) == "fine"


def test_verification_is_switched_off_only_by_name(way: Way, serve: Serve, client: LMClient) -> None:
    """collaboration: with one warning for an endpoint."""
    told: list[tuple[str, Any]] = []
    client.emit = lambda name, **facts: told.append((str(name), facts))  # type: ignore[method-assign]
    server = serve("other.example")
    lm = _lm(server, ssl_verify=False)
    assert "fine" in way(client, lm)
    client.close()
    assert "fine" in way(client, lm)
    assert told == [("dspex.lm.unverified", {"endpoint": f"127.0.0.1:{server.port}"})]


@pytest.mark.parametrize("form", ["one file", "two files", "encrypted"])
def test_client_shows_its_certificate(
    form: str, way: Way, serve: Serve, ca: Any, bundle: Path, client: LMClient, tmp_path: Path
) -> None:
    """collaboration: mutual TLS."""
    server = serve(wants=ca)
    lm = _lm(server, ssl_verify=bundle, ssl_certificate=_own(ca, tmp_path, form))
    assert "fine" in way(client, lm)
    assert "me@example.org" in str(server.peers[0])
    assert PASSWORD not in f"{lm!r}{lm}{lm.network!r}{lm.settings().keys()}"
    assert (PASSWORD in lm.secrets) is (form == "encrypted")


def test_certificate_is_read_again_when_it_was_renewed(
    serve: Serve, ca: Any, bundle: Path, client: LMClient, tmp_path: Path
) -> None:
    """collaboration: under the same name, for the next connection."""
    server = serve(wants=ca)
    path = tmp_path / "me.pem"
    for name in ("first@example.org", "second@example.org"):
        ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
        lm = _lm(server, ssl_verify=bundle, ssl_certificate=path)
        assert PLAIN["complete"](client, lm) == "fine"
        assert name in str(server.peers[-1])
        client.close()


def test_missing_certificate_is_told(way: Way, serve: Serve, ca: Any, bundle: Path, client: LMClient) -> None:
    """collaboration: of a server that wants one; in TLS 1.3 its alert comes after the handshake."""
    with pytest.raises(LMTransportError) as caught:
        way(client, _lm(serve(wants=ca), ssl_verify=bundle, retries=0))
    assert "ssl_certificate" in str(caught.value) or "closed" in str(caught.value) or "reset" in str(caught.value)


def _own(ca: Any, folder: Path, form: str) -> Any:
    from cryptography.hazmat.primitives import serialization

    cert = ca.issue_cert("me@example.org")
    both, chain, key = folder / "both.pem", folder / "cert.pem", folder / "key.pem"
    cert.private_key_and_cert_chain_pem.write_to_path(both)
    chain.write_bytes(cert.cert_chain_pems[0].bytes())
    plain = cert.private_key_pem.bytes()
    if form == "encrypted":
        loaded = serialization.load_pem_private_key(plain, None)
        plain = loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD.encode()),
        )
    key.write_bytes(plain)
    return {"one file": both, "two files": (chain, key), "encrypted": (str(chain), str(key), PASSWORD)}[form]


@pytest.mark.parametrize("wrong", ["missing", "no PEM", "number", "empty"])
def test_authority_that_cannot_be_used_is_refused_at_once(wrong: str, tmp_path: Path) -> None:
    """unit: with its path."""
    path = tmp_path / "ca.pem"
    if wrong == "no PEM":
        path.write_text("-----BEGIN NOTHING-----")
    given: Any = {"number": 5, "empty": ""}.get(wrong, path)
    with pytest.raises(SettingsError, match="ssl_verify" if wrong in ("number", "empty") else "ca.pem") as caught:
        LM("openai/m", api_key=KEY, ssl_verify=given)
    assert caught.value.key == "ssl_verify"


@pytest.mark.parametrize("name", CHOSEN[:3])
def test_environments_authority_that_is_missing_is_refused_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: of https endpoints; others do not need it."""
    monkeypatch.setenv(name, "/nowhere/ca.pem")
    with pytest.raises(SettingsError, match=f"{name} is '/nowhere/ca.pem'"):
        LM("openai/m", api_key=KEY)
    LM("openai/m", api_key=KEY, api_base="http://127.0.0.1:1/v1")


def test_own_certificate_that_cannot_be_used_is_refused_at_once(ca: Any, tmp_path: Path) -> None:
    """unit: missing, of another key, encrypted without the password or with a wrong one, and shown nowhere."""
    chain, key, password = _own(ca, tmp_path, "encrypted")
    other = tmp_path / "other.pem"
    other.write_bytes(ca.issue_cert("you@example.org").private_key_pem.bytes())
    cases: list[tuple[Any, str]] = [
        (tmp_path / "none.pem", r"none\.pem.*cannot be read"),
        ((chain, tmp_path / "none.pem"), r"none\.pem.*cannot be read"),
        ((chain, other), "not that of the certificate"),
        ((chain, key), "encrypted"),
        ((chain, key, "wrong-" + password), "password does not open"),
        ((chain, key, password, "more"), "must be a path"),
        (5, "must be a path"),
    ]
    for given, told in cases:
        with pytest.raises(SettingsError, match=told) as caught:
            LM("openai/m", api_key=KEY, ssl_certificate=given)
        assert caught.value.key == "ssl_certificate" and password not in str(caught.value)


@pytest.mark.parametrize(
    "option", [{"ssl_verify": False}, {"proxy": "http://h:1"}, {"max_connections": 5}, {"proxy": None}]
)
def test_worker_that_connects_by_itself_heeds_no_option(option: dict[str, Any]) -> None:
    """unit: so they are refused, with what to do instead."""
    with pytest.raises(LMUnsupportedFeatureError, match="environment"):
        LM("openai/m", api_key=KEY, direct=True, **option)


def test_records_with_other_authorities_are_others(bundle: Path) -> None:
    """unit: and replace() keeps what was given."""
    plain, own = LM("openai/m", api_key=KEY), LM("openai/m", api_key=KEY, ssl_verify=bundle)
    assert plain != own and own.replace(temperature=0.5).ssl_verify == str(bundle)
    assert own.replace(ssl_verify=None) == plain


def test_not_tls_at_all_says_so(way: Way, peer: Callable[..., Any], client: LMClient) -> None:
    """collaboration: https:// where http:// is spoken."""
    base = peer([b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"]).url.replace("http:", "https:")
    lm = LM("openai/m", api_base=base, api_key=KEY, cache=False, retries=0)
    with pytest.raises(LMTransportError, match="does not speak TLS there"):
        way(client, lm)
