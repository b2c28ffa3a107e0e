"""Stream a program's fields while its LM still writes them.

The LM's engine shows every event of an answer to a `FieldWatch`, which splits the text into fields by the adapter's
format and queues the pieces; `run_stream` runs the program in a thread of its own and yields what the queue holds.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import dspy

from ..context import Context
from .call_context import CallUsage, in_call
from .commands import Programs
from .field_splitters import ChatSplitter, JSONSplitter, Piece, XMLSplitter
from .lm_direct import beside_a_loop, is_direct
from .program_calls import Adapter, Record, Spec, accounted, call, call_options
from .worker_lm import WATCH

_LOOK_EVERY = 0.1  # seconds between looks at whether the caller has gone
_DONE = object()


def run_stream(
    programs: Programs,
    ctx: Context,
    spec: Spec,
    inputs: Mapping[str, Any],
    lm: Record | None = None,
    adapter: Adapter = None,
    config: Mapping[str, Any] | None = None,
    rollout_id: int | None = None,
    tool_set: str | None = None,
    awaits: bool = False,
    carried: bytes | None = None,
) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Yield {"field", "text", "predictor"} as the program's fields arrive; the return value is `run`'s."""
    built = programs.built(ctx, spec, lm, adapter)
    arguments = programs.arguments(ctx, built, inputs, tool_set, carried)
    options = call_options(config, rollout_id)
    pieces: SimpleQueue[Any] = SimpleQueue()
    outcome: list[Any] = []

    def work() -> None:
        try:
            call_usage = CallUsage()
            watch = FieldWatch(built.program, pieces)
            watching = {WATCH: watch}
            with programs.calling(ctx, lm, adapter, call_usage, spec=spec, **watching), dspy.track_usage() as usage:
                prediction = in_call(ctx, call, built, arguments, options, awaits=awaits)
            outcome.append(accounted(built, prediction, usage, call_usage, is_exact=ctx.is_trusted))
        except BaseException as error:  # it belongs to the thread that yields
            outcome.append(error)
        finally:
            pieces.put(_DONE)

    job = partial(beside_a_loop, work) if is_direct(lm) else work
    thread = threading.Thread(target=contextvars.copy_context().run, args=(job,), name="dspex-stream", daemon=True)
    thread.start()
    while (piece := _next(pieces, ctx)) is not _DONE:
        yield piece
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    result: dict[str, Any] = outcome[0]
    return result


def _next(pieces: SimpleQueue[Any], ctx: Context) -> Any:
    while True:
        try:
            return pieces.get(timeout=_LOOK_EVERY)
        except Empty:
            ctx.check_cancelled()


class FieldWatch:
    """Sees the events of every LM answer of one program and queues the fields' text, on the program's threads."""

    def __init__(self, program: dspy.Module, pieces: SimpleQueue[Any]) -> None:
        self._names = {id(predictor): name for name, predictor in program.named_predictors()}
        self._pieces = pieces
        self._answers: dict[int, _AnswerFields] = {}  # by thread or task: a program may ask several LMs at once

    def __call__(self, event: Any) -> bool:
        """Take one event; True if it showed text that cannot be taken back."""
        me = _asker()
        if event.type == "start":
            self._answers[me] = _AnswerFields(*self._asking())
            return False
        answer = self._answers.get(me)
        if answer is None:
            return False
        if event.type == "end":
            del self._answers[me]
            return self._queue(answer, answer.end())
        if event.type == "delta" and event.delta.type == "text":
            return self._queue(answer, answer.feed(event.delta.text))
        return False

    def viewer(self) -> _Viewer:
        """Return a viewer of the answer that this thread asks for now; for LMs that emit no events."""
        return _Viewer(self, _AnswerFields(*self._asking()))

    def _asking(self) -> tuple[str | None, list[str]]:
        predictor = (dspy.settings.caller_modules or [None])[-1]
        signature: Any = predictor.signature if isinstance(predictor, dspy.Predict) else None
        return self._names.get(id(predictor)), [] if signature is None else list(signature.output_fields)

    def _queue(self, answer: _AnswerFields, pieces: Iterable[Piece]) -> bool:
        shown = False
        for field, text in pieces:
            shown = True
            self._pieces.put({"field": field, "text": text, "predictor": answer.predictor})
        return shown


def _asker() -> int:
    """Return what tells this thread's, or this task's, answer from others that arrive at the same time."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        task = None
    return threading.get_ident() if task is None else id(task)


class _Viewer:
    """Sees one answer as plain text."""

    def __init__(self, watch: FieldWatch, answer: _AnswerFields) -> None:
        self._watch = watch
        self._answer = answer

    def show(self, text: str) -> bool:
        return self._watch._queue(self._answer, self._answer.feed(text))

    def finish(self) -> None:
        self._watch._queue(self._answer, self._answer.end())


class _AnswerFields:
    """One answer on its way: which format it is in shows with its first character."""

    def __init__(self, predictor: str | None, fields: list[str]) -> None:
        self.predictor = predictor
        self._fields = fields
        self._begun = ""
        self._splitter: ChatSplitter | XMLSplitter | JSONSplitter | None = None

    def feed(self, text: str) -> list[Piece]:
        if self._splitter is None:
            self._begun += text
            if not self._begun.strip():
                return []
            self._splitter, text = self._chosen(), self._begun
        return self._splitter.feed(text)

    def end(self) -> list[Piece]:
        return [] if self._splitter is None else self._splitter.end()

    def _chosen(self) -> ChatSplitter | XMLSplitter | JSONSplitter:
        adapter = dspy.settings.adapter
        # ChatAdapter may fall back to JSON by itself, behind the setting.
        if isinstance(adapter, dspy.JSONAdapter) or self._begun.lstrip()[0] in "{`":
            return JSONSplitter(self._fields)
        return XMLSplitter(self._fields) if isinstance(adapter, dspy.XMLAdapter) else ChatSplitter(self._fields)
