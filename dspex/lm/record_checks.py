"""Check an LM's settings, and bring each into one immutable form. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from ..errors import SettingsError

_WHOLE = frozenset({"max_tokens", "max_completion_tokens", "top_k", "top_logprobs", "seed"})
_NUMBERS = frozenset({"temperature", "top_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "min_p"})
_MAPPINGS = frozenset({"extra_body", "thinking", "chat_template_kwargs", "cache_control"})
_NUMBER = re.compile(r"-?[0-9]{1,9}")


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingsError(f"{name} must be a whole number of at least {least}, not {value!r}.", key=name)
    return value


def seconds(name: str, value: Any) -> float:
    """Return a positive, finite number."""
    if not is_number(value) or not math.isfinite(value) or value <= 0:
        raise SettingsError(f"{name} must be a positive number, not {value!r}.", key=name)
    return float(value)


def require_kinds(options: Mapping[str, Any]) -> None:
    """Check the kinds of what is sent to every model; its range is checked where it has one.

    Raises:
        SettingsError: a number or text that is none.
    """
    for name, value in options.items():
        if name in _WHOLE and value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise SettingsError(f"{name} must be a whole number, not {value!r}.", key=name)
        if name in _NUMBERS and value is not None and not is_number(value):
            raise SettingsError(f"{name} must be a number, not {value!r}.", key=name)
        if name in _MAPPINGS and not isinstance(value, Mapping | None):
            raise SettingsError(f"{name} must be a mapping, not {value!r}.", key=name)
        if name == "cache_control_injection_points" and not are_points(value):
            raise SettingsError(
                f"{name} must be a list such as [{{'location': 'message', 'role': 'system'}}], with role or index, not "
                f"{value!r}.",
                key=name,
            )
        if name == "response_format" and not isinstance(value, Mapping | None):
            raise SettingsError(
                f"response_format must be a mapping such as {{'type': 'json_object'}}, or a pydantic model's class, "
                f"not {value!r}.",
                key=name,
            )
        if name == "logprobs" and not isinstance(value, bool | None):
            raise SettingsError(f"logprobs must be True or False, not {value!r}; top_logprobs says how many.", key=name)
        if name == "reasoning_effort" and not isinstance(value, str | None):
            raise SettingsError(f"reasoning_effort must be a text such as 'low', not {value!r}.", key=name)
        if name == "stop" and not isinstance(value, str | list | tuple | None):
            raise SettingsError(f"stop must be a text or a list of texts, not {value!r}.", key=name)


def are_points(value: Any) -> bool:
    """Return whether it is a list of messages to be cached, each named by its role or its place; or None."""
    return value is None or (isinstance(value, list | tuple) and all(map(_is_point, value)))


def _is_point(point: Any) -> bool:
    if not isinstance(point, Mapping):
        return False
    index = point.get("index")
    return (
        isinstance(point.get("role"), str | None)
        and (index is None or type(index) is int or (isinstance(index, str) and _NUMBER.fullmatch(index) is not None))
        and isinstance(point.get("location"), str | None)
        and isinstance(point.get("control"), Mapping | None)
    )


def is_number(value: Any) -> bool:
    """Return whether it is a number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def header_pairs(given: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return HTTP headers, their names in lower case."""
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise SettingsError("headers must be a mapping of names to texts.", key="headers")
    loose = cast("Any", given)
    pairs = tuple(loose.items() if isinstance(given, Mapping) else (tuple(pair) for pair in loose))
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise SettingsError("headers must be a mapping of names to texts.", key="headers")
        name, value = pair
        if any(c in name + value for c in "\r\n\0") or not name:
            raise SettingsError("A header must be one line.", key="headers")
    return tuple((name.lower(), value) for name, value in pairs)


def price_of(given: Any) -> tuple[float, float] | None:
    """Return USD per million input and output tokens, as its user declares them."""
    if given is None:
        return None
    try:
        per_input, per_output = (float(part) for part in given)
    except (TypeError, ValueError):
        per_input = per_output = math.nan
    if not (0.0 <= per_input < math.inf and 0.0 <= per_output < math.inf):
        raise SettingsError(
            f"price must be (USD per million input tokens, USD per million output tokens), such as (0.15, 0.6), not "
            f"{given!r}.",
            key="price",
        )
    return per_input, per_output


def claim(name: str, given: Any) -> bool | None:
    """Return True, False, or None for the model table's value."""
    if given is not None and not isinstance(given, bool):
        raise SettingsError(f"{name} must be True, False or None (what the model table says), not {given!r}.", key=name)
    return given


def switch(name: str, given: Any) -> bool:
    """Return True or False; a text such as "no" is neither."""
    if not isinstance(given, bool):
        raise SettingsError(f"{name} must be True or False, not {given!r}.", key=name)
    return given


def frozen(value: Any) -> Any:
    """Return lists and dicts as tagged tuples: the record stays immutable and hashable."""
    if isinstance(value, Mapping):
        return ("{}", tuple((key, frozen(item)) for key, item in value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return ("[]", tuple(frozen(item) for item in value))
    return value


def thawed(value: Any) -> Any:
    """Return the lists and dicts again."""
    if isinstance(value, tuple):
        tag, items = value
        return {k: thawed(v) for k, v in items} if tag == "{}" else [thawed(v) for v in items]
    return value
