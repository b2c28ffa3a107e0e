"""Giving the caller the exception that a worker described: DSPex's own classes by name, RemoteError for the rest.

What a tool, a metric or the LM layer raised here during a worker's reverse call comes out as it was raised, when the
worker passes it on; see `raised_here`.
"""

from __future__ import annotations

from typing import Any

from .. import errors
from ..errors import DspexError, RemoteError

RAISED = "raised_in_host"  # the fact that tells which reverse call of its call raised an error
_PLAIN = {  # classes that take a message and only these facts
    "SettingsError": ("key",),
    "InvalidInput": ("field",),
    "NotConfigured": ("key",),
    "OptimizationFailed": (),
    "ProtocolError": (),
    "CallCancelled": (),
}


def raised_here(described: dict[str, Any], raised: dict[int, DspexError] | None) -> DspexError | None:
    """Give the very exception that a reverse call raised in this process, if that is what the worker passed on."""
    facts = described.get("facts")
    id = facts.get(RAISED) if raised and isinstance(facts, dict) else None
    error = raised.get(id) if raised and isinstance(id, int) else None
    return error if error is not None and type(error).__name__ == described.get("kind") else None


def error_from(described: dict[str, Any], *, pool: str, command: str, worker: str, session: str = "") -> DspexError:
    """Give the exception for an ERROR message's description; whatever it holds, an exception comes out."""
    kind = described.get("kind")
    message = str(described.get("message", ""))
    facts = described.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    try:
        known = _known(str(kind), message, facts, pool=pool, session=session) if kind else None
    except (TypeError, ValueError, KeyError):
        known = None  # facts that do not fit the class: say it as what it is, an error of the worker
    return known or RemoteError(
        str(kind or described.get("type") or "Exception"),
        message,
        traceback=str(described.get("traceback", "")),
        where=f"{command!r} in worker {worker} of pool {pool!r}",
    )


def _known(kind: str, message: str, facts: dict[str, Any], *, pool: str, session: str) -> DspexError | None:
    if kind in _PLAIN:
        allowed = {key: facts[key] for key in _PLAIN[kind] if key in facts}
        made: DspexError = getattr(errors, kind)(message, **allowed)
        return made
    match kind:
        case "UnknownName":
            what, where = str(facts.get("what", "command")), f"pool {pool!r}"
            return errors.UnknownName(what, str(facts["name"]), map(str, facts.get("known", ())), where=where)
        case "EncodeError":
            return errors.EncodeError(str(facts["path"]), str(facts["type"]), str(facts.get("reason", "")))
        case "FrameTooLarge":
            what = str(facts.get("what", "bytes"))
            return errors.FrameTooLarge("worker", int(facts["limit"]), int(facts["actual"]), what=what)
        case "MissingDependency":
            return errors.MissingDependency(message, package=str(facts.get("package", "")), extra=facts.get("extra"))
        case "SessionStateTooLarge":
            return errors.SessionStateTooLarge(message, pool=pool, session=session)
        case "AdapterParseError":
            return _parse_error(message, facts)
    lm_error = getattr(errors, kind, None)
    if isinstance(lm_error, type) and issubclass(lm_error, errors.LMError):
        return lm_error(message, **{key: facts[key] for key in _LM_FACTS if key in facts})
    return None


_LM_FACTS = ("code", "model", "provider", "provider_code", "status", "request_id", "retry_after")


def _parse_error(message: str, facts: dict[str, Any]) -> errors.AdapterParseError:
    parsed = facts.get("parsed")
    return errors.AdapterParseError(
        message,
        adapter=str(facts.get("adapter", "")),
        expected=[str(name) for name in facts.get("expected") or ()],
        parsed=parsed if isinstance(parsed, dict) else None,
        lm_response=str(facts.get("lm_response", "")),
    )
