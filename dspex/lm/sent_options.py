"""Say how each option of a request travels to a provider, and refuse what would not travel at all. Pure.

A *worded* option is one that each dialect has a word or a place of its own for; the dialects write it, in workers DSPy
does. Any other is a *member*: it is put into the request's body as it is, here, for both routes. `extra_body` holds
members of any name. What DSPy's own client would leave out in silence is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ..errors import LMConfigurationError, LMUnsupportedFeatureError, UnknownName
from .clouds.cloud_options import CLOUD_OPTIONS
from .lm_options import GENERATION_OPTIONS
from .providers import Provider
from .record_checks import are_points

LOCAL = frozenset({"n", "num_generations", "rollout_id", "cache"})
"""Options that decide about a call and never travel."""
HEADERS = frozenset({"headers", "extra_headers"})
MARKS = "cache_control_injection_points"
EXTRA = "extra_body"
CONNECTION = (
    HEADERS
    | CLOUD_OPTIONS
    | frozenset(
        "model api_key api_base base_url timeout proxy ssl_verify ssl_certificate max_connections verify cert".split()
    )
)
ROUTING = frozenset(
    """model models preset fallbacks default_fallbacks context_window_fallbacks content_policy_fallbacks user_config
    model_list api_base base_url background previous_response_id conversation""".split()
)
"""Members by which a gateway (OpenRouter, LiteLLM's proxy) takes another model, or asks elsewhere; by which OpenAI
answers later, unseen and uncounted, or goes on with what another request of the key's was answered."""
_OF_THIS_PROCESS = {
    "requests_per_minute": "Leave it out, or leave direct=True out.",
    "cache_ttl": "Answers of such an LM are not cached.",
}
DECIDING = (ROUTING | {"provider"}) - {"model", "api_base", "base_url"}
"""The members that say where a gateway asks: of the host's record alone, for whoever asks by it."""
RESERVED = frozenset({"model", "messages", "contents", "stream", "stream_options", "n"})
_WORDED = frozenset(
    """temperature max_tokens max_completion_tokens top_p seed frequency_penalty presence_penalty stop logprobs
    top_logprobs tools tool_choice parallel_tool_calls response_format reasoning_effort prompt_cache_key service_tier
    user store""".split()
)
_OF_OPENAI = GENERATION_OPTIONS - {"cache_control", "output_config", "context_management", "container"}
_OF_ANTHROPIC = frozenset(
    """top_k thinking cache_control output_config context_management container mcp_servers inference_geo metadata
    cache_control_injection_points extra_body logit_bias verbosity moderation provider prediction""".split()
)
_OF_RESPONSES = _OF_OPENAI - {"cache_control_injection_points"}
_OF_GEMINI = frozenset("top_k extra_body logit_bias metadata verbosity moderation provider prediction".split())
_REFUSED: Mapping[str, Mapping[str, str]] = {
    "anthropic": {
        **dict.fromkeys(("seed", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs"), "has none"),
        "store": "stores no answers",
        "prompt_cache_key": "caches by marks on messages: give cache_control_injection_points=",
        "prompt_cache_retention": "caches by marks on messages: give cache_control_injection_points=",
    },
    "responses": dict.fromkeys(
        ("stop", "seed", "frequency_penalty", "presence_penalty"),
        "has none in its Responses API, which model_type='responses' asks",
    ),
    "gemini": {
        "user": "has none",
        "prompt_cache_key": "has none",
        "prompt_cache_retention": "has none",
        "parallel_tool_calls": "has no such switch",
    },
}
_MORE = {"openai": _OF_OPENAI, "responses": _OF_RESPONSES, "anthropic": _OF_ANTHROPIC, "gemini": _OF_GEMINI}
_CONFIG = "a call's config"
_MOST_OF_ANTHROPIC = 16384  # max_tokens where none is given
_REFUSED_BY_XAI: Mapping[str, str] = dict.fromkeys(
    ("logprobs", "top_logprobs"), "gives none to DSPy's client, which leaves it out"
)


@cache
def worded_by(provider: Provider) -> frozenset[str]:
    """Return the options that a provider's dialect words, here and in DSPy."""
    worded = _WORDED if provider.dialect in ("openai", "responses") else _WORDED | {"top_k"}
    if provider.dialect == "openai" and not provider.routes_prompt_cache:
        worded -= {"prompt_cache_key"}  # DSPy's client refuses it there; it is sent as it is
    return worded - refused_by(provider).keys()


@cache
def refused_by(provider: Provider) -> Mapping[str, str]:
    """Return the options that would be lost on the way to this provider, and why."""
    return _REFUSED_BY_XAI if provider.prefix == "xai" else _REFUSED.get(provider.dialect, {})


@cache
def known_to(provider: Provider) -> frozenset[str]:
    """Return all options that may be named to this provider."""
    more = _MORE[provider.dialect]
    return (worded_by(provider) | more) - refused_by(provider).keys()


def require_sendable(provider: Provider, model: str, options: Mapping[str, Any], where: str = _CONFIG) -> None:
    """Check that each option gets to the provider as it is meant.

    Raises:
        UnknownName: LM() has no such option.
        LMConfigurationError: an option of LM() itself, or a member that is DSPex's own to write.
        LMUnsupportedFeatureError: this provider has none, or not so; or nobody has what a call's config names.
    """
    known = known_to(provider)
    for name, value in options.items():
        if value is not None and name not in known and name not in LOCAL and not _is_so_anyway(provider, name, value):
            raise _refused(provider, model, name, where)
    for name in options.get(EXTRA) or ():
        if name in RESERVED:
            raise LMConfigurationError(
                f"{EXTRA} holds {name!r}, which DSPex writes itself: a request's model, messages and number of answers "
                f"are those of the LM and the call.",
                model=model,
                provider=provider.id,
            )
    for tool in options.get("tools") or ():
        if isinstance(tool, Mapping) and "cache_control" in {*tool, *(tool.get("function") or ())}:
            raise LMUnsupportedFeatureError(
                f"A tool's cache_control cannot be sent; {MARKS}=[{{'location': 'tool_config'}}] marks the last tool.",
                model=model,
                provider=provider.id,
            )
    if not are_points(options.get(MARKS)):
        raise LMConfigurationError(f"{MARKS} holds what names no message.", model=model, provider=provider.id)
    places = {point.get("location") or "message" for point in options.get(MARKS) or ()}
    if odd := sorted(places - ({"message", "tool_config"} if provider.dialect == "anthropic" else {"message"})):
        raise LMUnsupportedFeatureError(
            f"{MARKS} has a point whose location is {odd[0]!r}, and {provider.prefix} takes marks on messages"
            f"{' and tools' if provider.dialect == 'anthropic' else ''} only.",
            model=model,
            provider=provider.id,
        )


def require_direct(provider: Provider, model: str, settings: Mapping[str, Any]) -> None:
    """Check that an LM that a worker asks by itself has nothing that only this process could do for it.

    Raises:
        LMUnsupportedFeatureError: it has, or has an option that DSPy's client would leave out.
    """
    for name, instead in _OF_THIS_PROCESS.items():
        if settings.get(name) is not None:
            text = (
                f"{name} is for requests of this process, and with direct=True a worker connects by itself. {instead}"
            )
            raise _unsupported(provider, model, text)
    for name, value in settings.items():
        if name in refused_by(provider) and value is not None and not _is_so_anyway(provider, name, value):
            raise _refused(provider, model, name, "LM()")


def require_consistent(provider: Provider, model: str, options: Mapping[str, Any]) -> None:
    """Check what options ask of each other: else one of them would be lost, or refused once it was paid for.

    Raises:
        LMConfigurationError, LMUnsupportedFeatureError: they exclude each other.
    """
    if options.get("top_logprobs") is not None and not options.get("logprobs"):
        raise LMConfigurationError("top_logprobs goes with logprobs=True.", model=model, provider=provider.id)
    if provider.dialect != "anthropic":
        return
    form = options.get("response_format")
    if isinstance(form, Mapping) and form.get("type") == "json_object":
        raise _unsupported(provider, model, "The Messages API has no any-JSON mode; give a JSON schema.")
    if options.get("thinking") and options.get("reasoning_effort"):
        raise LMConfigurationError(
            "thinking and reasoning_effort say the same; give one.", model=model, provider=provider.id
        )
    budget, most = (options.get("thinking") or {}).get("budget_tokens"), options.get("max_tokens") or _MOST_OF_ANTHROPIC
    if isinstance(budget, int) and isinstance(most, int) and budget >= most:
        raise LMConfigurationError(
            f"thinking may take {budget:,} tokens, and max_tokens is {most:,}: give max_tokens above it, for it bounds "
            f"both.",
            model=model,
            provider=provider.id,
        )


def members_in(provider: Provider, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of the body that these options stand for; those of `extra_body` are the last."""
    apart = worded_by(provider) | refused_by(provider).keys() | LOCAL | {EXTRA, MARKS}
    found = {name: value for name, value in options.items() if value is not None and name not in apart}
    return {**found, **(options.get(EXTRA) or {})}


def _refused(provider: Provider, model: str, name: str, where: str) -> Exception:
    through = f"{EXTRA}={{{name!r}: ...}} sends it as it is"
    if name in CONNECTION:
        return LMConfigurationError(f"{name} belongs to LM(), not to a call's configuration.", model=model)
    if (why := refused_by(provider).get(name)) is not None:
        return _unsupported(provider, model, f"{name} would not be sent: {provider.prefix} {why}. {through}.")
    if name in GENERATION_OPTIONS:
        return _unsupported(provider, model, f"{provider.prefix} has no {name}; {through}.")
    unknown = unknown_option(name, known_to(provider), where)
    return unknown if where != _CONFIG else _unsupported(provider, model, str(unknown))


def unknown_option(name: str, known: Iterable[str], where: str) -> UnknownName:
    """Return the error for an option that nobody has; it says how to send it nevertheless."""
    error = UnknownName("option", name, tuple(known), where=where)
    error.args = (f"{error.args[0]} A parameter of the provider's own is sent with {EXTRA}={{{name!r}: ...}}.",)
    return error


def _is_so_anyway(provider: Provider, name: str, value: Any) -> bool:
    """Whether a provider that has no such option does what it says nevertheless."""
    is_refused = name in refused_by(provider)
    return is_refused and value is (name == "parallel_tool_calls")


def _unsupported(provider: Provider, model: str, message: str) -> LMUnsupportedFeatureError:
    return LMUnsupportedFeatureError(message, model=model, provider=provider.id)
