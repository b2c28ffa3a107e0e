"""`CallObserver`: see the steps of one call, for whoever asked: its trace, its prompts, the host's callbacks.

DSPy calls it at the beginning and end of each module, LM, tool and adapter, on whichever thread runs that. The trace
goes with the reply. Prompts, answers and what callbacks want are told to the parent at once, since a call may fail; the
parent's answer is waited for, so that callbacks see things in their order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.callback_context import ACTIVE_CALL_ID
from dspy.utils.usage_tracker import UsageTracker

from ...context import Context
from ...failure import Failure
from ...wire import OverLimit, Unencodable, codec
from ..lms.lm_answers import Entry
from ..lms.lm_transport import LMCallOptions
from ..values.output_logprobs import parted
from ..values.wire_values import to_wire
from .predictor_paths import PredictorPaths

TOLD_MOST = 8 * 1024 * 1024  # bytes of one thing that the parent is told
TRACE_MOST = 4 * 1024 * 1024  # bytes of all the inputs and outputs of a trace
SHOWN = 500  # characters of a value that cannot cross
STEPS_MOST = 10_000


@dataclass(slots=True)
class _Open:
    """Something that has begun: a module, an LM call, a tool."""

    component: dict[str, Any]
    inputs: Mapping[str, Any]
    parent: str | None
    began: float = field(default_factory=time.monotonic)
    step: dict[str, Any] | None = None  # of a predictor: what its LM calls add to
    asked: Any = None  # of an LM call: the messages, once the parent knows of them; until the answer is told
    is_answered: bool = False


class CallObserver(BaseCallback):  # type: ignore[misc]
    """Sees one call. `want`: {"id", "trace": bool, "history": bool, "hooks": [names of the callbacks' methods]}."""

    def __init__(self, context: Context, program: dspy.Module, want: Mapping[str, Any]) -> None:
        self.steps: list[dict[str, Any]] | None = [] if want.get("trace") else None
        self._context = context
        self._names = PredictorPaths(program)
        self._id = str(want.get("id") or "")
        self._records = bool(want.get("history"))
        self._hooks: frozenset[str] = frozenset(want.get("hooks") or ())
        self._open: dict[str, _Open] = {}
        self._size = 0

    # -- what DSPy calls ---------------------------------------------------------------------------------------------

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        given = inputs.get("kwargs", inputs)
        begun = self._begin("module", call_id, instance, {**given, **_positional(inputs)})
        if isinstance(instance, dspy.Predict):
            begun.step = {"predictor": begun.component["name"], "usage": {}, "cached": None, "finish_reason": ""}

    def on_module_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        begun = self._open.get(call_id)
        if begun is not None and begun.step is not None and self.steps is not None:
            self._add_step(begun, outputs, exception)
        self._end("module", call_id, outputs, exception)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        begun = self._begin("lm", call_id, instance, inputs)
        if self._records:  # before the answer: a call may be cancelled, or its worker die, while it waits
            begun.asked = _messages_of(inputs)
            known = {"model": begun.component["model"], "lm": str(getattr(instance, "ref", "") or "")}
            who = {"call_id": call_id, "predictor": self._predictor_around(begun)}
            messages = _crossing(list(begun.asked))
            self._tell({"what": "asked", "messages": messages, **known, **who}, droppable="messages")

    def on_lm_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        begun = self._open.get(call_id)
        if begun is not None and self._records and (exception is not None or not begun.is_answered):
            facts: dict[str, Any] = {"model": begun.component["model"]}
            if exception is not None:
                facts["error"] = f"{type(exception).__name__}: {exception}"
            else:  # an LM that tells DSPy nothing of its answers
                facts["outputs"] = [_output(one) for one in (outputs if isinstance(outputs, list) else [outputs])]
            self._record(begun.inputs, begun, call_id, facts)
        self._end("lm", call_id, outputs, exception)

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._begin("tool", call_id, instance, inputs.get("kwargs", inputs))

    def on_tool_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        self._end("tool", call_id, outputs, exception)

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._begin("adapter_format", call_id, instance, _plain_of_adapter(inputs))

    def on_adapter_format_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        self._end("adapter_format", call_id, outputs, exception)

    def on_adapter_parse_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._begin("adapter_parse", call_id, instance, _plain_of_adapter(inputs))

    def on_adapter_parse_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        self._end("adapter_parse", call_id, outputs, exception)

    # -- an LM's answer: see lm_answers ------------------------------------------------------------------------------

    def answered(self, client: Any, entry: Entry, finish_reason: str, asked: LMCallOptions | None) -> None:
        """See an answer, inside the LM call that it is of; `asked` is how the parent was asked for it."""
        usage = entry.get("usage") or {}
        cached = asked is not None and bool(asked.were_cached) and all(asked.were_cached)
        call_id = ACTIVE_CALL_ID.get() or ""
        begun = self._open.get(call_id)
        if (step := self._step_around(begun)) is not None:
            step["finish_reason"] = finish_reason
            step["cached"] = step["cached"] is not False and cached
            if usage:
                step["usage"].setdefault(str(entry.get("model")), []).append(usage)
        if self._records:
            facts = {
                "model": str(entry.get("response_model") or entry.get("model") or ""),
                "lm": (asked.ref if asked is not None else "") or str(getattr(client, "ref", "") or ""),
                "asked_model": str(entry.get("model") or ""),
                "outputs": [_output(one) for one in entry.get("outputs") or ()],
                "options": _shown_options(entry.get("kwargs") or {}),
                "usage": to_wire(usage),
                "cached": cached,
                "finish_reason": finish_reason,
            }
            self._record(entry, begun, call_id, facts)

    # ================================================================================================================

    def _begin(self, kind: str, call_id: str, instance: Any, inputs: Mapping[str, Any]) -> _Open:
        parent = ACTIVE_CALL_ID.get()
        begun = self._open[call_id] = _Open(self._component(kind, instance), inputs, parent)
        if f"on_{kind}_start" in self._hooks:
            self._tell_hook(f"on_{kind}_start", call_id, begun, inputs=_crossing(dict(inputs)))
        return begun

    def _end(self, kind: str, call_id: str, outputs: Any, exception: BaseException | None) -> None:
        begun = self._open.pop(call_id, None)
        if begun is None or f"on_{kind}_end" not in self._hooks:
            return
        error = None if exception is None else {"type": type(exception).__name__, "message": str(exception)}
        self._tell_hook(f"on_{kind}_end", call_id, begun, outputs=_crossing(outputs), exception=error)

    def _component(self, kind: str, instance: Any) -> dict[str, Any]:
        name = self._names.of(instance) if kind == "module" else str(getattr(instance, "name", None) or "")
        model = str(getattr(instance, "model", "") or "") if kind == "lm" else ""
        return {"kind": kind, "type": type(instance).__name__, "name": name, "model": model}

    def _step_around(self, begun: _Open | None) -> dict[str, Any] | None:
        """Return the step of the predictor that an LM call is for."""
        while begun is not None:
            if begun.step is not None:
                return begun.step
            begun = self._open.get(begun.parent or "")
        return None

    def _predictor_around(self, begun: _Open | None) -> str:
        step = self._step_around(begun)
        return str(step["predictor"]) if step is not None else self._names.running()

    # -- the trace ---------------------------------------------------------------------------------------------------

    def _add_step(self, begun: _Open, outputs: Any, exception: BaseException | None) -> None:
        assert self.steps is not None
        assert begun.step is not None
        seconds = time.monotonic() - begun.began
        step: dict[str, Any] = {
            **begun.step,
            "inputs": _crossing({name: value for name, value in begun.inputs.items() if name not in _OPTIONS}),
            "outputs": _crossing(parted(outputs)[0]) if hasattr(outputs, "items") else {},
            "seconds": seconds,
            "began": time.time() - seconds,
            "usage": _summed(begun.step["usage"]),
            "cached": bool(begun.step["cached"]),
        }
        if exception is not None:
            step["error"] = f"{type(exception).__name__}: {exception}"[: SHOWN * 4]
        self._size += _size(step)
        if self._size > TRACE_MOST:
            step = {**step, "inputs": {}, "outputs": {}, "is_cut": True}
        if len(self.steps) < STEPS_MOST:
            self.steps.append(step)

    # -- telling the parent ------------------------------------------------------------------------------------------

    def _record(self, asked: Mapping[str, Any], begun: _Open | None, call_id: str, facts: dict[str, Any]) -> None:
        told = {"what": "answer", **facts, "predictor": self._predictor_around(begun), "seconds": None}
        messages = _messages_of(asked)
        if begun is not None:
            told["seconds"] = time.monotonic() - begun.began
            if begun.asked == messages:  # which the parent knows
                told["call_id"], messages = call_id, []
            begun.asked, begun.is_answered = None, True
        self._tell({"messages": _crossing(list(messages)), **told}, droppable="messages")

    def _tell_hook(self, hook: str, call_id: str, begun: _Open, **facts: Any) -> None:
        who = {"call_id": call_id, "component": {**begun.component, "parent": begun.parent}}
        self._tell(
            {"what": "hook", "hook": hook, **who, **facts}, droppable="inputs" if "inputs" in facts else "outputs"
        )

    def _tell(self, told: dict[str, Any], *, droppable: str) -> None:
        """Tell the parent; what is too large is told without its largest part. What fails there never fails a call."""
        if _size(told) > TOLD_MOST:
            told = {**told, droppable: None, "is_cut": True}
        with contextlib.suppress(Failure, Unencodable, OverLimit):
            self._context.call_parent("call.seen", {"id": self._id, **told})


_OPTIONS = frozenset({"config", "demos", "signature", "lm", "new_signature"})


def observer_of(context: Context, program: dspy.Module, want: Mapping[str, Any] | None) -> CallObserver | None:
    """Return what sees a call; None where nobody wants to see its steps."""
    is_seen = want and (want.get("trace") or want.get("history") or want.get("hooks"))
    return CallObserver(context, program, want) if want and is_seen else None


def _positional(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {str(at): value for at, value in enumerate(inputs.get("args") or ())}


def _messages_of(asked: Mapping[str, Any]) -> Any:
    return asked.get("messages") or [{"role": "user", "content": asked.get("prompt")}]


def _plain_of_adapter(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an adapter's arguments, its signature as text."""
    return {name: str(value) if isinstance(value, type) else value for name, value in inputs.items()}


def _output(output: Any) -> dict[str, Any]:
    given = output if isinstance(output, Mapping) else {"text": output}
    return {name: _crossing(value) for name, value in given.items()}


def _shown_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an LM call that say how it was asked; what carries connections or keys is no business."""
    return {
        str(name): _crossing(value)
        for name, value in options.items()
        if value is not None and not str(name).startswith("api_") and "key" not in str(name) and name != "headers"
    }


def _summed(usages: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    tracker = UsageTracker()
    for model, entries in usages.items():
        for entry in entries:
            tracker.add_usage(model, entry)
    return {model: to_wire(used) for model, used in tracker.get_total_tokens().items()}


def _crossing(value: Any, levels: int = 4) -> Any:
    """Return a value as it can cross; of what cannot, its text."""
    try:
        crossed = to_wire(value)
        codec.encode(crossed)
    except Exception:  # a value of the user's, whose own code may be asked for its form
        if isinstance(value, Mapping) and levels:
            return {str(name): _crossing(one, levels - 1) for name, one in value.items()}
        if isinstance(value, list | tuple) and levels:
            return [_crossing(one, levels - 1) for one in value]
        return _shown(value)
    return crossed


def _shown(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:  # a repr of the user's
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return text.encode("utf-8", "replace").decode()[:SHOWN]


def _size(value: Any) -> int:
    try:
        return len(codec.encode(value))
    except (Unencodable, OverLimit):
        return TOLD_MOST + 1
