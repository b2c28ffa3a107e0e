"""Resolve an LM's name to a provider, address and key. Only this file reads the environment for it."""

from __future__ import annotations

import os

from ..errors import LMConfigurationError, SettingsError, UnknownName
from .http.endpoint import canonical_base, target_of
from .providers import PROVIDERS, Provider, reached_by_dspy


def provider_of(model: str, *, is_direct: bool = False) -> tuple[Provider, str]:
    """Return the provider and the model's name there; a direct LM's may be any that DSPy knows.

    Raises:
        SettingsError, UnknownName: a name that says neither.
    """
    if not isinstance(model, str) or not model:
        raise SettingsError("LM() needs a model, such as 'openai/gpt-4o-mini'.", key="model")
    prefix, slash, name = model.partition("/")
    if not slash:
        raise SettingsError(f"Name the provider too: LM('openai/{model}') or LM('anthropic/{model}').", key="model")
    if prefix not in PROVIDERS and not (is_direct and prefix):
        error = UnknownName("LM provider", prefix, PROVIDERS, where=f"LM({model!r})")
        error.args = (f"{error.args[0]} With direct=True, workers reach any that DSPy itself can.",)
        raise error
    if not name:
        raise SettingsError(f"The model {model!r} has a provider but no name after it.", key="model")
    return PROVIDERS.get(prefix) or reached_by_dspy(prefix), name


def key_for(provider: Provider, given: str | None) -> tuple[str | None, str]:
    """Return the key, and where it came from: "argument", "env:NAME", "placeholder" or "none"."""
    if given is not None:
        if not isinstance(given, str) or not given or any(c in given for c in "\r\n\0"):
            raise SettingsError("api_key must be a string of one line.", key="api_key")
        return given, "argument"
    for name in provider.key_names:
        if os.environ.get(name):
            return os.environ[name].strip(), f"env:{name}"
    if provider.placeholder_key is not None:
        return provider.placeholder_key, "placeholder"
    return None, "none"


def base_url_for(provider: Provider, given: str | None) -> str:
    """Return the endpoint's URL, without a slash at its end."""
    url = given or next((os.environ[name] for name in provider.url_names if os.environ.get(name)), provider.base_url)
    if not url and not provider.base_url:
        return ""  # DSPy knows where it is
    if not isinstance(url, str):
        raise SettingsError(f"api_base must be a URL, not {url!r}.", key="api_base")
    url = canonical_base(url)
    target_of(url, "")
    if "?" in url or "#" in url:  # the path of a request is put after it
        raise LMConfigurationError("An LM's api_base must not hold a query (?) or a fragment (#); use headers=.")
    return url.rstrip("/")
