"""Which of an endpoint's APIs an LM asks: DSPy's `model_type`. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import LMUnsupportedFeatureError, SettingsError
from .providers import Provider

if TYPE_CHECKING:
    from .clouds.cloud_account import CloudAccount

CHAT = "chat"
RESPONSES = "responses"
TYPES = (CHAT, RESPONSES, "text")
_BY_RESPONSES: Mapping[str, str] = {"openai": "openai", "azure": "azure"}  # who DSPy asks by it, and its names for them


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
    if model_type == (RESPONSES if provider.dialect == "responses" else CHAT):
        return provider
    if model_type == RESPONSES and provider.prefix in _BY_RESPONSES:
        return _by_responses(provider)
    if provider.dialect == "responses":
        told = f"By {provider.id!r} DSPy asks a Responses API only: give model_type='responses'."
        raise LMUnsupportedFeatureError(told, model=model, provider=provider.id)
    advice = "LM(..., direct=True) lets a worker's DSPy ask it."
    if model_type == RESPONSES:
        advice = f"LM('openai/<model>', api_base=..., model_type='responses') asks a server that speaks it; {advice}"
    what = "text completions" if model_type == "text" else f"the Responses API of {provider.prefix}"
    raise LMUnsupportedFeatureError(f"DSPex does not ask {what}. {advice}", model=model, provider=provider.id)


def require_reachable(model_type: str, account: CloudAccount | None, model: str) -> None:
    """Check that a cloud has this API at the address that was given.

    Raises:
        LMUnsupportedFeatureError: it is a deployment's, of which Azure asks chat only.
    """
    if model_type == RESPONSES and account is not None and account.base_url != account.worker_base:
        raise LMUnsupportedFeatureError(
            "Azure has the Responses API in its v1 API only, beside no deployment: leave api_version out, or give "
            "api_base='https://<resource>.openai.azure.com/openai/v1'.",
            model=model,
        )


@functools.cache
def _by_responses(provider: Provider) -> Provider:
    return replace(provider, id=_BY_RESPONSES[provider.prefix], dialect="responses")
