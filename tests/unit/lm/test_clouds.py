"""Unit: an LM's account at a cloud: its address, its options and the environment's, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import LMConfigurationError, LMUnsupportedFeatureError, SettingsError, UnknownName
from dspex.lm.dspy_lm15 import lm15
from dspex.lm.providers import PROVIDERS
from dspex.lm.record import LM

AWS = {"aws_region_name": "eu-central-1", "aws_access_key_id": "AKID-canary", "aws_secret_access_key": "canary-secret"}
ROOT = "https://x.openai.azure.com"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No account of the machine's own is found."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "GCLOUD_", "VERTEX", "ANTHROPIC_")):
            monkeypatch.delenv(name)


def test_the_providers_are_those_of_dspys_library() -> None:
    """contract: every one that answers chats, but logins of the local user; its keys, addresses and dialect too."""
    apart = {"claude-code", "openai-codex", "typesafe"}  # local logins; no text is generated
    apart |= {"openai", "azure"}  # the Responses API of "openai-chat" and "azure-chat" here
    ours = {provider.id: provider for provider in PROVIDERS.values()}
    assert set(ours) == set(lm15("registry").PROVIDERS) - apart
    for id, provider in ours.items():
        theirs = lm15("registry").PROVIDERS[id]
        assert theirs.dialect.removesuffix("-chat").removeprefix("openai-") == provider.dialect
        if not provider.by_lm15:
            continue
        assert set(theirs.env_keys) <= set(provider.key_names)
        assert theirs.placeholder_key == provider.placeholder_key
        if (host := theirs.access.host) is None:
            assert provider.host is None and provider.base_url == (theirs.access.base_url or provider.base_url)
            continue
        assert provider.host is not None
        assert provider.host.base_url == host.base_url and provider.host.path == "/" + host.path_template.strip("/")
        assert provider.host.service == (host.sigv4_service or "")
        assert set(host.endpoint_env) <= set(provider.host.endpoint_names)
        for setting in provider.host.settings:
            of_theirs = next(each for each in host.settings if each.name == setting.name)
            assert set(of_theirs.env) <= set(setting.env) and of_theirs.default == setting.default


@pytest.mark.parametrize(
    ("model", "model_type", "said"),
    [
        ("meta:m", "chat", "'meta' DSPy asks a Responses API only"),
        ("moonshotai-responses/m", None, "'moonshotai-responses' DSPy asks a Responses API only"),
        ("moonshot/m", "responses", "Responses API of moonshot"),
        ("meta-chat:m", "responses", "Responses API of meta-chat"),
    ],
)
def test_an_api_that_dspy_does_not_ask_there_is_refused_by_name(model: str, model_type: str | None, said: str) -> None:
    """contract: when the LM is made."""
    with pytest.raises(LMUnsupportedFeatureError, match=said):
        LM(model, api_key="k", model_type=model_type)


@pytest.mark.parametrize(
    ("model", "options", "url"),
    [
        ("azure/d", {"azure_resource": "x"}, f"{ROOT}/openai/v1"),
        ("azure/d", {"azure_resource": "x", "api_version": "2024-06-01"}, f"{ROOT}/openai/deployments/d"),
        ("azure/d", {"api_base": ROOT}, f"{ROOT}/openai/deployments/d"),
        ("azure/d", {"api_base": f"{ROOT}/"}, f"{ROOT}/openai/deployments/d"),
        ("azure/d", {"api_base": f"{ROOT}/openai/"}, f"{ROOT}/openai/deployments/d"),
        ("azure/d", {"api_base": f"{ROOT}/openai/v1/"}, f"{ROOT}/openai/v1"),
        ("azure/d", {"api_base": ROOT, "api_version": "latest"}, f"{ROOT}/openai/v1"),
        ("azure/d", {"api_base": f"{ROOT}/openai/deployments/e?api-version=1"}, f"{ROOT}/openai/deployments/e"),
        ("azure-anthropic/c", {"azure_resource": "x"}, "https://x.services.ai.azure.com/anthropic/v1"),
        ("azure_anthropic:c", {"api_base": "https://h/anthropic"}, "https://h/anthropic/v1"),
        ("bedrock-chat:m:0", AWS, "https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1"),
        ("bedrock_chat/m:0", AWS, "https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1"),
        ("bedrock-mantle-chat/m", AWS, "https://bedrock-mantle.eu-central-1.api.aws/v1"),
        ("bedrock-anthropic/m", AWS, "https://bedrock-mantle.eu-central-1.api.aws/anthropic/v1"),
        ("bedrock-chat/m", {**AWS, "api_base": "https://vpce.example/"}, "https://vpce.example/openai/v1"),
        (
            "vertex_ai/gemini-2.5-pro",
            {"vertex_project": "p", "vertex_location": "europe-west4", "api_key": "t"},
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/europe-west4/publishers/google",
        ),
        (
            "vertex_ai/claude-opus-4",
            {"vertex_project": "p", "api_key": "t"},
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global",
        ),
        ("vertex-express/gemini-2.5-pro", {"api_key": "k"}, "https://aiplatform.googleapis.com/v1/publishers/google"),
    ],
)
def test_where_a_clouds_models_are(model: str, options: dict[str, Any], url: str) -> None:
    """unit: by the account's settings or a given endpoint; the same record can be made again."""
    lm = LM(model, **options)
    assert lm.api_base == url and lm.native
    assert lm == lm.replace() and lm.replace(max_tokens=7).api_base == url
    assert lm.name == model.partition("/" if "/" in model.partition(":")[0] else ":")[2]


@pytest.mark.parametrize(
    ("model", "options", "error", "said"),
    [
        ("azure/d", {}, LMConfigurationError, "azure_resource"),
        ("bedrock-chat/m", {}, LMConfigurationError, "aws_region_name"),
        ("vertex/m", {}, LMConfigurationError, "vertex_project"),
        ("aws-anthropic/m", AWS, LMConfigurationError, "aws_workspace_id"),
        ("bedrock-chat/m", {**AWS, "aws_region_name": "evil.example/"}, LMConfigurationError, "aws_region_name"),
        ("azure/d", {"azure_resource": "x.evil.example/#"}, LMConfigurationError, "azure_resource"),
        (
            "bedrock-chat/m",
            {"aws_region_name": "us-east-1", "aws_access_key_id": "AKID"},
            LMConfigurationError,
            "pairs",
        ),
        ("openai/m", {"api_version": "2024-06-01"}, LMUnsupportedFeatureError, "Azure"),
        ("openai/m", {"aws_region_name": "us-east-1"}, LMUnsupportedFeatureError, "AWS"),
        ("azure/m", {"azure_resource": "x", "vertex_project": "p"}, LMUnsupportedFeatureError, "Vertex"),
        ("azure-anthropic/m", {"azure_resource": "x", "api_version": "1"}, LMUnsupportedFeatureError, "api_version"),
        ("azure/m", {"azure_resource": 5}, SettingsError, "azure_resource"),
        ("azure/m", {"azure_resource": "x", "azure_ad_token_provider": "t"}, SettingsError, "function"),
        ("azure/m", {"api_base": f"{ROOT}#f"}, LMConfigurationError, "fragment"),
        ("vertex/m", {"vertex_project": "p", "vertex_credentials": "/nowhere.json"}, SettingsError, "vertex_cred"),
        ("vertex/m", {"vertex_project": "p", "vertex_credentials": "{"}, SettingsError, "vertex_credentials"),
    ],
)
def test_what_an_account_lacks_is_refused_when_the_lm_is_made(
    model: str, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    """unit: by the name of the option."""
    with pytest.raises(error, match=said) as caught:
        LM(model, **options)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "environment", "options"),
    [
        ("azure/d", {"AZURE_API_BASE": ROOT, "AZURE_API_KEY": "k", "AZURE_API_VERSION": "2024-02-01"}, {}),
        ("azure/d", {"AZURE_OPENAI_ENDPOINT": ROOT, "AZURE_AD_TOKEN": "canary-token"}, {}),
        ("azure/d", {"AZURE_OPENAI_RESOURCE": "x", "AZURE_OPENAI_API_KEY": "k"}, {}),
        (
            "bedrock-chat/m",
            {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "canary-secret"},
            {},
        ),
        ("bedrock-chat/m", {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_BEARER_TOKEN_BEDROCK": "canary-bearer"}, {}),
        ("vertex/m", {"GOOGLE_CLOUD_PROJECT": "p"}, {"api_key": "canary-token"}),
    ],
)
def test_the_environment_is_read_once(
    model: str, environment: dict[str, str], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: when the LM is made; a record that is made again from it does not read it either."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    lm = LM(model, **options)
    for name in environment:
        monkeypatch.delenv(name)
    assert lm.replace() == lm and lm.replace().secrets == lm.secrets
    assert lm.replace(temperature=0.5).api_base == lm.api_base
    assert "canary" not in f"{lm!r} {json.dumps(lm.to_wire())} {lm.account!r}"


def test_given_credentials_go_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: a bearer token of the environment would otherwise take the place of keys that were given."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "canary-bearer")
    assert LM("bedrock-chat/m", **AWS).api_key is None
    assert LM("bedrock-chat/m", **AWS).signer is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    named = LM("bedrock-chat/m", aws_region_name="us-east-1", api_key="mine")
    assert (named.api_key, named.signer) == ("mine", None)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "canary-key")
    assert LM("azure/d", azure_resource="x", azure_ad_token="token").api_key is None


def test_secrets_are_no_part_of_reports() -> None:
    """unit: nor of the worker's record; two identities are two records."""
    one, other = LM("bedrock-chat/m", **AWS), LM("bedrock-chat/m", **{**AWS, "aws_secret_access_key": "another"})
    assert one != other and {"canary-secret", "AKID-canary"} <= set(one.secrets)
    assert one.identity != other.identity
    shown = f"{one!r} {one.account!r} {one.signer!r} {json.dumps(one.to_wire())}"
    assert "canary" not in shown and "AKID-canary" not in json.dumps(one.to_wire())
    assert one.to_wire()["settings"] == {"region": "eu-central-1"}


@pytest.mark.parametrize(
    "model", ["bedrock/anthropic.claude", "mistral/m", "together_ai/a/b", "vertex_ai/mistral-large"]
)
def test_what_only_litellm_reaches_says_direct(model: str) -> None:
    """unit: before anything is sent; and with direct=True it is taken, with options for its cloud."""
    with pytest.raises(UnknownName, match="direct=True"):
        LM(model)
    lm = LM(model, direct=True, api_key="k", aws_region_name="us-east-1", vertex_project="p")
    assert not lm.native and "direct=True" in str(lm.obstacle)
    assert dict(lm.direct_options) == {"aws_region_name": "us-east-1", "vertex_project": "p"}
    assert lm.to_wire()["model"] == model


@pytest.mark.parametrize("model", ["openai/m", "anthropic/m", "gemini/m", "hosted_vllm/m"])
@pytest.mark.parametrize("path", ["/v1", "/v1/"])
def test_an_endpoints_query_is_behind_the_path(model: str, path: str) -> None:
    """unit: it is no part of the base URL, and what it holds as a credential is shown nowhere."""
    lm = LM(model, api_base=f"http://h{path}?api-version=1&subscription-key=canary-key", api_key="k")
    assert (lm.api_base, lm.query) == ("http://h/v1", "api-version=1&subscription-key=canary-key")
    assert "canary-key" in lm.secrets and "canary" not in f"{lm!r} {json.dumps(lm.to_wire())}"
    assert lm == lm.replace() and lm != lm.replace(api_base="http://h/v1")


def test_a_deployments_members_have_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: as litellm names them for versions of the API that know no max_completion_tokens."""
    of: Callable[..., LM] = lambda name, **options: LM(f"azure/{name}", api_key="k", **options)  # noqa: E731
    assert of("gpt-4o", api_base=ROOT).renames == {"max_completion_tokens": "max_tokens"}
    assert of("gpt-5", api_base=ROOT).renames == {} == of("gpt-4o", azure_resource="x").renames
