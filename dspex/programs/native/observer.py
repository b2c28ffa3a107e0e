"""`Observer`: carry what one call shows to whoever wants to see it: its history, its callbacks, its trace.

It is made for calls that somebody watches; other calls have none, and cost nothing. Natively, `WatchedPredictor` shows
it the steps; of a call in a worker, the worker tells them (`see`), on threads of the pool. Any thread.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...errors import RemoteError
from ...lm.call_history import BYTES_MOST, ENTRIES_MOST, CallHistory, HistoryEntry, size_of_entry, without
from ...lm.observing import Observing
from ...lm.usage import cost_of
from ...types.base_callback import HOOKS
from ...types.component import Component

if TYPE_CHECKING:
    from ...lm.lm_client import LMClient
    from ...lm.record import LM

_ID_MOST = 200  # characters


@dataclass(frozen=True, slots=True)
class Watch:
    """What is wanted of a program's calls: whether a trace, in which histories they are kept, whom to call back."""

    trace: bool
    histories: tuple[CallHistory, ...]
    callbacks: tuple[Any, ...]
    observing: Observing
    source: int  # the program's, in a history that it shares


class Observer:
    """Sees one call."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._asked: dict[str, _Asked] = {}  # what a worker waits for, by DSPy's ids of its LM calls
        self._begun: dict[str, str] = {}  # hooks for the ends of what has begun in a worker, by DSPy's ids
        self.hooks = frozenset(hook for hook in HOOKS if any(hasattr(each, hook) for each in watch.callbacks))

    # -- both routes -------------------------------------------------------------------------------------------------

    def call_back(self, hook: str, **facts: Any) -> None:
        """Call every callback that has this method."""
        if hook in self.hooks:
            for callback in self.watch.callbacks:
                self.watch.observing.call(callback, hook, facts)

    def record(self, entry: HistoryEntry) -> None:
        """Keep an entry in the histories."""
        for history in self.watch.histories:
            history.add(entry, self.watch.source)

    # -- natively ----------------------------------------------------------------------------------------------------

    def begin(self, kind: str, type: str, inputs: dict[str, Any], **who: Any) -> _Begun:
        """Note that something begins; end it by `_Begun.end`."""
        return _Begun(self, kind, Component(kind, type, **who), inputs)

    # -- in a worker -------------------------------------------------------------------------------------------------

    def wanted(self, id: str) -> dict[str, Any]:
        """Return what a worker is asked for, which tells it under this id."""
        watch = self.watch
        return {"id": id, "trace": watch.trace, "history": bool(watch.histories), "hooks": sorted(self.hooks)}

    def see(self, told: Mapping[str, Any], worker: str, client: LMClient) -> None:
        """Take what a worker tells; it may tell anything."""
        if told.get("what") == "asked" and self.watch.histories:
            self._wait_for(_id(told.get("call_id")), _entry_of(told, worker, client))
        elif told.get("what") == "answer" and self.watch.histories:
            asked = self._asked.pop(_id(told.get("call_id")), None)
            entry = _entry_of(told, worker, client)
            self.record(entry if asked is None or entry.messages else replace(entry, messages=asked.entry.messages))
        elif told.get("what") == "hook" and _text(told.get("hook")) in self.hooks:
            self._call_back_of(told)

    def _wait_for(self, call_id: str, entry: HistoryEntry) -> None:
        """Keep what was asked until it is answered; not beyond what a history holds."""
        size = size_of_entry(entry)
        waiting = list(self._asked.values())
        if len(waiting) < ENTRIES_MOST and size + sum(asked.size for asked in waiting) <= BYTES_MOST:
            self._asked[call_id] = _Asked(entry, size)

    def close(self, error: BaseException | None) -> None:
        """Note that the call has ended: what its worker still waited for has no answer, and ends with it."""
        why = "the call ended without its answer" if error is None else f"{type(error).__name__}: {error}"
        why = why.partition("\n")[0]  # what a dead worker wrote last is no business of a history
        while self._asked:
            _, asked = self._asked.popitem()
            self.record(replace(asked.entry, seconds=time.monotonic() - asked.at, error=why))
        while self._begun:
            call_id, hook = self._begun.popitem()  # the innermost first
            self.call_back(hook, call_id=call_id, outputs=None, exception=error)

    def _call_back_of(self, told: Mapping[str, Any]) -> None:
        hook, call_id = str(told["hook"]), _id(told.get("call_id"))
        if hook.endswith("_start"):
            given = told.get("inputs")
            inputs = given if isinstance(given, dict) else {}
            if len(self._begun) < ENTRIES_MOST:
                self._begun[call_id] = hook.removesuffix("_start") + "_end"
            self.call_back(hook, call_id=call_id, instance=_component_of(told.get("component")), inputs=inputs)
        else:
            self._begun.pop(call_id, None)
            self.call_back(hook, call_id=call_id, outputs=told.get("outputs"), exception=_raised(told.get("exception")))


@dataclass(frozen=True, slots=True)
class _Asked:
    entry: HistoryEntry  # without an answer
    size: int
    at: float = field(default_factory=time.monotonic)


class _Begun:
    """Something that has begun natively, and its callbacks."""

    __slots__ = ("_kind", "_observer", "began", "call_id")

    def __init__(self, observer: Observer, kind: str, component: Component, inputs: dict[str, Any]) -> None:
        self.call_id = uuid.uuid4().hex
        self.began = time.monotonic()
        self._observer = observer
        self._kind = kind
        observer.call_back(f"on_{kind}_start", call_id=self.call_id, instance=component, inputs=inputs)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    def end(self, outputs: Any, exception: BaseException | None = None) -> None:
        """Note that it has ended."""
        self._observer.call_back(f"on_{self._kind}_end", call_id=self.call_id, outputs=outputs, exception=exception)


def messages_kept(messages: Sequence[Mapping[str, Any]], lm: LM | None) -> Sequence[Mapping[str, Any]]:
    """Return messages without the keys of the language model that they are for."""
    kept: Sequence[Mapping[str, Any]] = without(list(messages), lm.secrets if lm is not None else ())
    return kept


# --- what a worker tells, which may be anything ---------------------------------------------------------------------


def _entry_of(told: Mapping[str, Any], worker: str, client: LMClient) -> HistoryEntry:
    lm = client.known(_text(told.get("lm")))
    outputs = without(_list(told.get("outputs")), lm.secrets if lm is not None else ())
    cached, usage = told.get("cached") is True, _map(told.get("usage"))
    seconds = told.get("seconds")
    return HistoryEntry(
        messages=messages_kept([message for message in _list(told.get("messages")) if isinstance(message, dict)], lm),
        text=text_in(outputs),
        model=_text(told.get("asked_model")) or _text(told.get("model")),
        outputs=_as_dspy_has_them(outputs),
        options=_map(told.get("options")),
        predictor=_text(told.get("predictor")),
        route=f"python:{worker}",
        worker=worker,
        usage=usage,
        cost_usd=0.0 if cached else cost_of(lm, usage) if lm is not None else None,
        seconds=seconds if isinstance(seconds, float) else None,
        cached=cached,
        finish_reason=_text(told.get("finish_reason")),
        error=without(_text(told.get("error")), lm.secrets if lm is not None else ()),
    )


def text_in(outputs: Sequence[Any]) -> str:
    """Return the text of the first output."""
    first = outputs[0] if outputs else ""
    return _text(first.get("text") if isinstance(first, Mapping) else first)


def _as_dspy_has_them(outputs: Sequence[Any]) -> list[Any]:
    """Return texts where every output is only a text."""
    if all(isinstance(each, Mapping) and set(each) == {"text"} for each in outputs):
        return [each["text"] for each in outputs]
    return list(outputs)


def _component_of(told: Any) -> Component:
    given = _map(told)
    who = {name: _text(given.get(name)) for name in ("kind", "type", "name", "model")}
    return Component(**who, parent=_text(given.get("parent")) or None)


def _raised(told: Any) -> RemoteError | None:
    return RemoteError(_text(told.get("type")), _text(told.get("message"))) if isinstance(told, Mapping) else None


def _id(value: Any) -> str:
    """Return DSPy's id of a call; it is kept until the call ends, and a worker may give one of any length."""
    return str(value)[:_ID_MOST] if isinstance(value, str | int) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
