"""Resolve an LM's name to a provider, address and key. Only this file reads the environment for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import LMConfigurationError, SettingsError, UnknownName
from .http.endpoint import canonical_base, target_of
from .provider import Provider
from .providers import PROVIDERS, reached_by_dspy

if TYPE_CHECKING:
    from .clouds.cloud_account import CloudAccount
    from .secret_settings import HoldsSecrets


def provider_of(model: str, *, is_direct: bool = False) -> tuple[Provider, str]:
    """Return the provider and the model's name there; a direct LM's may be any that DSPy knows.

    A provider is named as DSPy names it: "azure/gpt-4o", "bedrock-chat:openai.gpt-oss-20b-1:0", or with a slash there
    too.

    Raises:
        SettingsError, UnknownName: a name that says neither, or a provider that only direct=True reaches.
    """
    if not isinstance(model, str) or not model:
        raise SettingsError("LM() needs a model, such as 'openai/gpt-4o-mini'.", key="model")
    head, colon, rest = model.partition(":")
    prefix, slash, name = (head, colon, rest) if _spelled(head) else model.partition("/")
    if not slash:
        raise SettingsError(f"Name the provider too: LM('openai/{model}') or LM('anthropic/{model}').", key="model")
    found = (None if is_direct and prefix in _LITELLMS else _found(prefix, name)) or PROVIDERS.get(prefix)
    if found is None and not (is_direct and prefix):
        raise _unreached(model, prefix)
    if not name:
        raise SettingsError(f"The model {model!r} has a provider but no name after it.", key="model")
    return found or reached_by_dspy(prefix), name


def key_for(provider: Provider, given: str | None, *, has_identity: bool = False) -> tuple[str | None, str]:
    """Return the key, and where it came from: "argument", "env:NAME", "placeholder" or "none".

    The environment is not asked where another identity was given: tokens, or keys that sign.
    """
    if given is not None:
        if not isinstance(given, str) or not given or any(c in given for c in "\r\n\0"):
            raise SettingsError("api_key must be a string of one line.", key="api_key")
        return given, "argument"
    if has_identity:
        return None, "none"
    for name in provider.key_names:
        if os.environ.get(name):
            return os.environ[name].strip(), f"env:{name}"
    if provider.placeholder_key is not None:
        return provider.placeholder_key, "placeholder"
    return None, "none"


def base_url_for(provider: Provider, given: str | None) -> tuple[str, str]:
    """Return the endpoint's URL, without a slash at its end, and its query.

    Raises:
        SettingsError, LMConfigurationError: it is no URL, or that of one kind of request.
    """
    url = given or next((os.environ[name] for name in provider.url_names if os.environ.get(name)), provider.base_url)
    if not url and not provider.base_url:
        return "", ""  # DSPy knows where it is
    if not isinstance(url, str):
        raise SettingsError(f"api_base must be a URL, not {url!r}.", key="api_base")
    url = canonical_base(url)
    target_of(url, "")
    if "#" in url:
        raise LMConfigurationError("An LM's api_base must not hold a fragment (#).")
    base, _, query = url.partition("?")
    base = base.rstrip("/")
    if (path := next((path for path in _PATHS if base.endswith(path)), None)) is not None:
        raise LMConfigurationError(
            f"An LM's api_base is where the paths of requests begin, such as 'https://host/v1': leave out {path!r}, "
            f"which is added to it."
        )
    return base, query


def cloud_account_for(
    model: str, provider: Provider, name: str, given: Mapping[str, Any], api_base: str | None, secrets: HoldsSecrets
) -> CloudAccount | None:
    """Return the account at the provider's cloud; None where the provider is no cloud.

    Raises:
        LMUnsupportedFeatureError, LMConfigurationError, SettingsError: an option of another cloud's, or one is missing.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if provider.host is None and not options:
        return None
    from .clouds.cloud_account import account_of, require_cloud_options  # for clouds only

    require_cloud_options(model, provider.host, options)
    if provider.host is None:
        return None
    return account_of(provider.host, name, options, api_base=api_base, has_key=secrets.api_key is not None)


def _spelled(prefix: str) -> bool:
    """Whether "prefix:name" is a model's name of DSPy's library: "ollama/llama3:8b" is none, and neither is a URL."""
    return "/" not in prefix and prefix.replace("_", "-") in _BY_ID


def _found(prefix: str, name: str) -> Provider | None:
    """Return a provider by the id that DSPy's library has for it, or by litellm's name for a cloud's models."""
    if prefix == "vertex_ai":
        family = next((family for family in _VERTEX_FAMILIES if name.startswith(family)), "")
        return PROVIDERS.get(_VERTEX_FAMILIES.get(family, ""))
    return None if prefix in PROVIDERS or prefix == "vllm" else _BY_ID.get(prefix.replace("_", "-"))


def _unreached(model: str, prefix: str) -> UnknownName:
    error = UnknownName("LM provider", prefix, PROVIDERS, where=f"LM({model!r})")
    said = f"{error.args[0]} With direct=True, workers reach any that DSPy itself can."
    if prefix in _LITELLMS:
        said = (
            f"Only litellm reaches the models of {prefix}, in a worker that gets the key: LM({model!r}, direct=True). "
            f"{_LITELLMS[prefix]}"
        )
    error.args = (said.rstrip(),)
    return error


_PATHS = ("/chat/completions", "/completions", "/messages", "/responses", "/embeddings")
_VERTEX_FAMILIES = {"gemini": "vertex", "claude": "vertex-anthropic"}
_BY_ID = {provider.id: provider for provider in PROVIDERS.values() if provider.prefix not in ("local", "ollama")}
_BEDROCK = (
    "Models with an OpenAI or Anthropic API there need none: 'bedrock-chat/...', 'bedrock-mantle-chat/...', "
    "'bedrock-anthropic/...'."
)
_LITELLMS: Mapping[str, str] = {
    **dict.fromkeys(
        """ai21 aiml anyscale azure_ai azure_text bytez cerebras clarifai cloudflare codestral cohere cohere_chat
        dashscope databricks datarobot deepinfra empower fireworks_ai friendliai galadriel github github_copilot
        gradient_ai heroku huggingface hyperbolic infinity jina_ai lambda_ai litellm_proxy lm_studio llamafile maritalk
        meta_llama mistral morph nebius novita nscale nvidia_nim oci oobabooga ovhcloud perplexity petals predibase
        replicate sagemaker sagemaker_chat sambanova snowflake text-completion-openai together_ai triton v0
        vercel_ai_gateway volcengine voyage watsonx watsonx_text xinference""".split(),
        "",
    ),
    "bedrock": _BEDROCK,
    "bedrock_converse": _BEDROCK,
    "vertex_ai": "Of Vertex AI, 'vertex_ai/gemini-...' and 'vertex_ai/claude-...' need none.",
    "vertex_ai_beta": "'vertex_ai/gemini-...' and 'vertex_ai/claude-...' need none.",
}
"""litellm's names of providers that DSPy's own client does not reach, and what to say of them."""
