"""Which of an endpoint's APIs an LM asks: DSPy's `model_type`. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import LMUnsupportedFeatureError, SettingsError
from .providers import Provider

CHAT = "chat"
RESPONSES = "responses"
TYPES = (CHAT, RESPONSES, "text")
_BY_RESPONSES: Mapping[str, str] = {"openai": "openai"}  # the providers that DSPy asks by it, and its names for them


def model_type_of(given: Any) -> str:
    """Return the model type, "chat" if none is given.

    Raises:
        SettingsError: there is no such type.
    """
    if given is None:
        return CHAT
    if given not in TYPES:
        raise SettingsError(f"model_type must be 'chat', 'responses' or 'text', not {given!r}.", key="model_type")
    return str(given)


def provider_for(provider: Provider, model_type: str, model: str) -> Provider:
    """Return the provider as models of this type are asked.

    Raises:
        LMUnsupportedFeatureError: this process does not ask it so.
    """
    if model_type == CHAT:
        return provider
    if model_type == RESPONSES and provider.prefix in _BY_RESPONSES:
        return _by_responses(provider)
    advice = "LM(..., direct=True) lets a worker's DSPy ask it."
    if model_type == RESPONSES:
        advice = f"LM('openai/<model>', api_base=..., model_type='responses') asks a server that speaks it; {advice}"
    what = "text completions" if model_type == "text" else f"the Responses API of {provider.prefix}"
    raise LMUnsupportedFeatureError(f"DSPex does not ask {what}. {advice}", model=model, provider=provider.id)


@functools.cache
def _by_responses(provider: Provider) -> Provider:
    return replace(provider, id=_BY_RESPONSES[provider.prefix], dialect="responses")
