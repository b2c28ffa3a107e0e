"""Check a call's generation options, and bring them into one form for all dialects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, LMUnsupportedFeatureError
from ..providers import Provider
from ..sent_options import LOCAL, members_in, require_consistent, require_sendable, worded_by

if TYPE_CHECKING:
    from ..record import LM

_TOOL = frozenset({"type", "function"})
_FUNCTION = frozenset({"name", "description", "parameters", "strict"})
_LADDER = ("minimal", "low", "medium", "high", "xhigh", "max")


def members(lm: LM, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what goes into the request's body as it is; None if all that is asked has a place of its own there.

    Raises:
        UnknownName, LMConfigurationError, LMUnsupportedFeatureError: an option would not get to the provider.
    """
    worded = worded_by(lm.provider)
    for option in options:
        if option not in worded and option not in LOCAL:
            require_sendable(lm.provider, lm.model, options)
            require_consistent(lm.provider, lm.model, options)
            return members_in(lm.provider, options)
    return None


def filled(lm: LM, system: str) -> str:
    """Return the system prompt; an empty one is refused, as by DSPy's engine."""
    if not system:
        raise LMUnsupportedFeatureError("The system message is empty; leave it out.", model=lm.model)
    return system


def max_tokens(lm: LM, options: Mapping[str, Any]) -> int | None:
    """Return one limit, whichever of the two names it was given by.

    Raises:
        LMUnsupportedFeatureError: both were given, and they disagree.
    """
    given = {options[key] for key in ("max_completion_tokens", "max_tokens") if options.get(key) is not None}
    if len(given) > 1:
        raise LMUnsupportedFeatureError("max_tokens and max_completion_tokens disagree.", model=lm.model)
    return int(given.pop()) if given else None


def number(options: Mapping[str, Any], name: str) -> float | None:
    """Return a float option; whole numbers become floats (`1` is sent as `1.0`), as in DSPy."""
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{name} must be a number, not {type(value).__name__}.", field=name)
    return float(value)


def stops(options: Mapping[str, Any]) -> list[str]:
    """Return the stop sequences as a list."""
    stop = options.get("stop")
    return [stop] if isinstance(stop, str) else list(stop or ())


def effort(provider: Provider, asked: Any) -> str | None:
    """Return the reasoning level to send: the nearest one that the server has; "none" switches reasoning off."""
    if asked is None:
        return None
    if asked == "none":
        return "none"
    if not provider.efforts or asked in provider.efforts:
        return str(asked)
    want = _LADDER.index(asked) if asked in _LADDER else 0
    return min(provider.efforts, key=lambda level: (abs(_LADDER.index(level) - want), _LADDER.index(level)))


def schema_of(lm: LM, response_format: Any) -> dict[str, Any] | None:
    """Return `response_format` as {"type": "json_object"} or {"type": "json_schema", "schema", "name"?, "strict"?}."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    inner = response_format.get("json_schema") if kind == "json_schema" else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping):
        raise InvalidInput("response_format must be {'type': 'json_object'} or an OpenAI json_schema format.")
    if inner.get("description") is not None:
        raise LMUnsupportedFeatureError("A response_format's description cannot be sent.", model=lm.model)
    found: dict[str, Any] = {
        "type": "json_schema",
        "name": inner.get("name") or "response",
        "schema": inner["schema"],
    }
    if inner.get("strict") is not None:
        found["strict"] = bool(inner["strict"])
    return found


def function_tools(lm: LM, tools: Any) -> list[dict[str, Any]]:
    """Return the function tools as {"name", "description", "parameters"}."""
    found = []
    for tool in tools or ():
        function = tool.get("function") if tool.get("type") == "function" else None
        if not isinstance(function, Mapping):
            raise LMUnsupportedFeatureError("Only function tools can be sent.", model=lm.model)
        if function.get("strict") is True:
            raise LMUnsupportedFeatureError("A tool's strict flag cannot be sent.", model=lm.model)
        if odd := sorted((tool.keys() - _TOOL) | (function.keys() - _FUNCTION)):
            raise LMUnsupportedFeatureError(f"A tool's {odd[0]!r} cannot be sent.", model=lm.model)
        parameters = function.get("parameters")
        found.append(
            {
                "name": function["name"],
                "description": function.get("description"),
                "parameters": {"type": "object", "properties": {}} if parameters is None else parameters,
            }
        )
    return found


def tool_choice(choice: Any) -> tuple[str, str | None] | None:
    """Return a tool choice as (mode, forced tool's name)."""
    if choice is None:
        return None
    if choice in ("none", "auto", "required"):
        return str(choice), None
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        return "required", str(choice["function"]["name"])
    raise InvalidInput("tool_choice must be none, auto, required or {'type': 'function', 'function': {'name': ...}}.")
