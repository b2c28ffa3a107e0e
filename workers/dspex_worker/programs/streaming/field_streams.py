"""Stream a program's fields while its LM still writes them.

The LM's engine shows the text of each answer to a viewer that `FieldWatch` makes for it, which splits it into fields by
the adapter's format and queues the pieces; `run_stream` runs the program in a thread of its own and yields what the
queue holds. Answers that come at the same time, for several predictors, are kept apart.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import dspy

from ...context import Context
from ...wire.codec import is_unicode
from ..adapter_choice import is_extracting
from ..calls.call_context import CallUsage, in_call
from ..commands import Programs
from ..lms.direct_lms import beside_a_loop, is_direct
from ..lms.worker_lm import WATCH
from ..modules.program_calls import Adapter, Record, Spec, accounted, call, call_options, watching
from ..observing.call_observer import observer_of
from ..observing.predictor_paths import PredictorPaths, asking
from .field_splitters import ChatSplitter, JSONSplitter, Piece, XMLSplitter

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
    want: Mapping[str, Any] | None = None,
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
            call_usage, observer = CallUsage(), observer_of(ctx, built.program, want)
            settings = {WATCH: FieldWatch(built.program, pieces), **watching(built, call_usage, observer)}
            with programs.calling(ctx, lm, adapter, call_usage, spec=spec, **settings):
                prediction = in_call(ctx, call, built, arguments, options, awaits=awaits)
            outcome.append(accounted(built, prediction, call_usage, want, observer, is_exact=ctx.is_trusted))
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
    """Queues the fields' text of every LM answer of one program, on whichever thread or task it arrives."""

    def __init__(self, program: dspy.Module, pieces: SimpleQueue[Any]) -> None:
        self._names = PredictorPaths(program)
        self._pieces = pieces

    def viewer(self) -> _Viewer:
        """Return a viewer of the answer that this thread or task asks for now."""
        predictor = asking()
        signature: Any = predictor.signature if isinstance(predictor, dspy.Predict) else None
        outputs = {} if signature is None or _is_first_step() else signature.output_fields
        return _Viewer(_AnswerFields(self._names.of(predictor), outputs), self._pieces)


class _Viewer:
    """Sees one answer as plain text."""

    def __init__(self, answer: _AnswerFields, pieces: SimpleQueue[Any]) -> None:
        self._answer = answer
        self._pieces = pieces

    def show(self, text: str) -> bool:
        """Take a piece; True if some of it was queued, and cannot be taken back."""
        return self._queue(self._answer.feed(text))

    def finish(self) -> None:
        self._queue(self._answer.end())

    def _queue(self, pieces: Iterable[Piece]) -> bool:
        shown = False
        for field, text in pieces:
            shown = True
            told = text if is_unicode(text) else text.encode("utf-8", "surrogatepass")  # half a surrogate pair
            self._pieces.put({"field": field, "text": told, "predictor": self._answer.predictor})
        return shown


class _AnswerFields:
    """One answer on its way: which format it is in shows with its first character."""

    def __init__(self, predictor: str, outputs: Mapping[str, Any]) -> None:
        self.predictor = predictor
        self._fields = list(outputs)
        self._texts = [name for name, info in outputs.items() if info.annotation is str]
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
        if isinstance(adapter, dspy.XMLAdapter):
            return XMLSplitter(self._fields, self._texts)
        return ChatSplitter(self._fields)


def _is_first_step() -> bool:
    """Whether the answer on its way is the first of two steps, in plain words."""
    return isinstance(dspy.settings.adapter, dspy.TwoStepAdapter) and not is_extracting.get()
