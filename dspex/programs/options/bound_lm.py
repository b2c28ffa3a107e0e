"""Check a call's options against the LM that it asks, and move into the LM's record what only a record may hold. Pure.

Workers may neither set headers that could be a credential nor members that move a request: what the host's own call
says of these becomes part of the record, so that both routes send it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...lm.record import LM
from ...lm.sent_options import DECIDING, EXTRA, HEADERS


def bound_lm(lm: LM, config: Mapping[str, Any]) -> LM:
    """Return the LM for calls with these options.

    Raises:
        UnknownName, SettingsError, LMConfigurationError, LMUnsupportedFeatureError: an option would not get to it.
    """
    moved = {name: value for name, value in config.items() if value is not None and _is_of_records(name, value)}
    lm.require_sendable({name: value for name, value in config.items() if name not in HEADERS})
    if not moved:
        return lm
    headers: dict[str, str] = {}
    for name in HEADERS & moved.keys():
        headers |= {key.lower(): value for key, value in dict(moved.pop(name)).items()}
    return _with(lm, moved, headers)


def unbound(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options that stay those of the call."""
    if not any(_is_of_records(name, value) for name, value in config.items()):
        return config
    return {name: value for name, value in config.items() if not _is_of_records(name, value)}


def _with(lm: LM, options: Mapping[str, Any], headers: Mapping[str, str]) -> LM:
    fallbacks = tuple(_with(fallback, options, headers) for fallback in lm.fallbacks)
    changes: dict[str, Any] = {**options, "headers": tuple({**dict(lm.headers), **headers}.items())}
    return lm.replace(fallbacks=fallbacks, **changes)


def _is_of_records(name: str, value: Any) -> bool:
    if name == EXTRA:
        return isinstance(value, Mapping) and any(member in DECIDING for member in value)
    return name in DECIDING or name in HEADERS
