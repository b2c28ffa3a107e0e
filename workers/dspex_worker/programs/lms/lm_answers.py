"""Note every answer that an LM gives in a worker: what was used, why it ended, and who wants to see it.

DSPy passes each answer, of whatever LM, to one function, which would keep it for `inspect_history`. Here that function
keeps nothing beyond the call: it tells the call's `CallUsage`, and its `CallHistories` and `CallObserver` if it has
them. Any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import dspy
from dspy.clients import base_lm

from ..calls.call_context import HISTORIES, OBSERVER, USAGE, CallUsage
from .lm_transport import answered_lm_call, note_carried

Entry = Mapping[str, Any]  # DSPy's record of one LM call
_last: ContextVar[str] = ContextVar("dspex_last_finish_reason", default="")
_KNOWN = frozenset({"stop", "length", "tool_call", "content_filter", "error", "tool_calls", "function_call"})


def install() -> None:
    """Take the place of DSPy's own functions; 3.3 has the method alone."""
    base_lm.record_history = note
    base_lm.BaseLM.update_history = note  # pyright: ignore[reportAttributeAccessIssue] - the first parameter is self


def note(client: Any, entry: Entry) -> None:
    """Note one LM's answer."""
    reason, asked = finish_reason_in(entry), answered_lm_call()
    note_carried(None)
    _last.set(reason)
    call_usage: CallUsage | None = dspy.settings.get(USAGE)
    if call_usage is not None:
        call_usage.ended(reason)
    if (histories := dspy.settings.get(HISTORIES)) is not None:
        histories.keep(client, entry)
    if (observer := dspy.settings.get(OBSERVER)) is not None:
        observer.answered(client, entry, reason, asked)


def taken_finish_reason() -> str:
    """Return why the last answer of this thread or task ended, once: "" if there was none since it was asked."""
    reason = _last.get()
    _last.set("")
    return reason


def finish_reason_in(entry: Entry) -> str:
    """Return why the first choice ended, as DSPy has it; a reason that DSPy does not know, as the provider has it."""
    response = entry.get("response")
    if isinstance(response, list | tuple):  # several choices, an answer each
        response = response[0] if response else None
    choices = _value(response, "choices")
    if not choices:
        return _of_lm15(response)
    found = str(_value(choices[0], "finish_reason") or "")
    return "tool_call" if found in ("tool_calls", "function_call") else found


def _of_lm15(response: Any) -> str:
    found = str(getattr(response, "finish_reason", None) or "")
    data = getattr(response, "provider_data", None)
    choices = data.get("choices") if found == "stop" and isinstance(data, Mapping) else None
    if not isinstance(choices, list | tuple) or not choices or not isinstance(choices[0], Mapping):
        return found
    said = choices[0].get("finish_reason")
    return said if isinstance(said, str) and said and said not in _KNOWN else found


def _value(held: Any, name: str) -> Any:
    return held.get(name) if isinstance(held, Mapping) else getattr(held, name, None)
