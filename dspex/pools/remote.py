"""Rebuild the exception that a worker described: DSPex's own classes by name, RemoteError for the rest.

What a tool, a metric or the LM layer raised here during a worker's callback comes out as it was raised, when the
worker passes it on; see `raised_here`.
"""

from __future__ import annotations

from typing import Any

from .. import errors
from ..errors import DspexError, RemoteError

RAISED = "raised_in_host"  # the fact that tells which callback of its call raised an error
NAME_MOST = 2_000  # characters of a name, a path or a reason
NAMES_MOST = 1_000
MESSAGE_MOST = 16 * 1024  # characters; twice what a worker sends
TRACEBACK_MOST = 128 * 1024
STATUS_MOST = 999
WAIT_MOST = 7 * 86400.0  # seconds
_LM_TEXTS = ("code", "model", "provider", "provider_code", "request_id")
_PLAIN = {  # classes that take a message and only these facts
    "SettingsError": ("key",),
    "InvalidInput": ("field",),
    "NotConfigured": ("key",),
    "OptimizationFailed": (),
    "ProtocolError": (),
    "CallCancelled": (),
}


def raised_here(described: dict[str, Any], raised: dict[int, DspexError] | None) -> DspexError | None:
    """Return the very exception that a callback raised in this process, if that is what the worker passed on."""
    facts = described.get("facts")
    id = facts.get(RAISED) if raised and isinstance(facts, dict) else None
    error = raised.get(id) if raised and isinstance(id, int) else None
    return error if error is not None and type(error).__name__ == described.get("kind") else None


def text_of(value: object, most: int) -> str:
    """A text that a worker gave, no longer than `most` characters; what is none is named by its type."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value) if isinstance(value, bool | int | float) else ""
    return text[:most] if text or isinstance(value, str) else f"<{type(value).__name__}>"


def error_from(described: dict[str, Any], *, pool: str, command: str, worker: str, session: str = "") -> DspexError:
    """Return the exception for an ERROR message's description; whatever it holds, an exception comes out."""
    kind = text_of(described.get("kind"), NAME_MOST)
    message = text_of(described.get("message"), MESSAGE_MOST)
    facts = described.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    try:
        known = _known(kind, message, facts, pool=pool, session=session) if kind else None
    except Exception:  # facts that do not fit the class: say it as what it is, an error of the worker
        known = None
    return known or RemoteError(
        kind or text_of(described.get("type"), NAME_MOST) or "Exception",
        message,
        traceback=text_of(described.get("traceback"), TRACEBACK_MOST),
        where=f"{command!r} in worker {worker} of pool {pool!r}",
    )


def _known(kind: str, message: str, facts: dict[str, Any], *, pool: str, session: str) -> DspexError | None:
    if kind in _PLAIN:
        allowed = {key: text_of(facts[key], NAME_MOST) for key in _PLAIN[kind] if facts.get(key) is not None}
        made: DspexError = getattr(errors, kind)(message, **allowed)
        return made
    match kind:
        case "UnknownName":
            what, where = _text(facts, "what") or "command", f"pool {pool!r}"
            return errors.UnknownName(what, _text(facts, "name"), _texts(facts, "known"), where=where)
        case "EncodeError":
            return errors.EncodeError(_text(facts, "path"), _text(facts, "type"), _text(facts, "reason"))
        case "FrameTooLarge":
            what = _text(facts, "what") or "bytes"
            return errors.FrameTooLarge("worker", int(facts["limit"]), int(facts["actual"]), what=what)
        case "MissingDependency":
            extra = _text(facts, "extra") or None
            return errors.MissingDependency(message, package=_text(facts, "package"), extra=extra)
        case "SessionStateTooLarge":
            return errors.SessionStateTooLarge(message, pool=pool, session=session)
        case "AdapterParseError":
            return _parse_error(message, facts)
    lm_error = getattr(errors, kind, None)
    if isinstance(lm_error, type) and issubclass(lm_error, errors.LMError):
        return lm_error(message, **_lm_facts(facts))
    return None


def _text(facts: dict[str, Any], name: str) -> str:
    return text_of(facts.get(name), NAME_MOST)


def _texts(facts: dict[str, Any], name: str) -> list[str]:
    """A list of names: as many as an error shows, for near ones are searched among them."""
    given = facts.get(name)
    return [text_of(item, NAME_MOST) for item in given[:NAMES_MOST]] if isinstance(given, list) else []


def _lm_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """What an LM's error says of itself, each of its own type: `retry_after` may become somebody's wait."""
    given = {name: facts[name] for name in _LM_TEXTS if isinstance(facts.get(name), str)}
    known: dict[str, Any] = {name: text[:NAME_MOST] for name, text in given.items()}
    status, wait = facts.get("status"), facts.get("retry_after")
    if type(status) is int and 0 <= status <= STATUS_MOST:
        known["status"] = status
    if isinstance(wait, int | float) and type(wait) is not bool and 0 <= wait <= WAIT_MOST:
        known["retry_after"] = wait
    return known


def _parse_error(message: str, facts: dict[str, Any]) -> errors.AdapterParseError:
    parsed = facts.get("parsed")
    response = facts.get("lm_response", "")
    return errors.AdapterParseError(
        message,
        adapter=_text(facts, "adapter"),
        expected=_texts(facts, "expected"),
        parsed=parsed if isinstance(parsed, dict) else None,
        lm_response=response if isinstance(response, str) else "",
    )
