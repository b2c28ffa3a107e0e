"""`WatchedPredictor`: a native predictor whose steps somebody sees: its modules, prompts, requests and answers.

It does what `NativePredictor` does, and shows an `Observer` the same steps that DSPy shows its callbacks: the module
and, for ChainOfThought, the predictor inside it; the adapter's format and parse; the language model. Callbacks run on
the caller's thread or event loop.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, Self

from ...adapters.compiled_signature import CompiledSignature, Message
from ...adapters.reply_reader import Outputs, ReadableCompletion, ReplyReader
from ...errors import AdapterParseError
from ...lm.call_history import HistoryEntry, without
from ...lm.completion import Completion
from ...types.chunk import Chunk
from ...types.prediction import Prediction, with_facts
from ...types.trace_step import TraceStep
from .native_route import NativePredictor
from .observer import Observer, messages_kept, text_in


class WatchedPredictor(NativePredictor):
    """Predicts for one call, and shows it."""

    @classmethod
    def of(cls, native: NativePredictor, module: str, observer: Observer) -> Self:
        """Return a predictor that does the same for one call of this module."""
        made = cls.__new__(cls)
        made.__dict__.update(native.__dict__)
        made._module = module
        made._observer = observer
        made._parent = None
        return made

    def inside(self, native: NativePredictor, parent: str) -> WatchedPredictor:
        """Return a predictor for a part of this call, as somebody's `parent` has it."""
        made = WatchedPredictor.of(native, self._module, self._observer)
        made._parent = parent
        return made

    _module: str
    _observer: Observer
    _parent: str | None  # the predictor's call_id

    # -- asking ------------------------------------------------------------------------------------------------------

    def predict(self, client: Any, inputs: Mapping[str, Any], *, deadline: float | None = None) -> Prediction:
        with self._shown(inputs) as shown:
            return shown.take(super().predict(_WatchedClient(client, self), inputs, deadline=deadline))

    async def apredict(self, client: Any, inputs: Mapping[str, Any], *, deadline: float | None = None) -> Prediction:
        with self._shown(inputs) as shown:
            return shown.take(await super().apredict(_WatchedClient(client, self), inputs, deadline=deadline))

    def stream(
        self, client: Any, inputs: Mapping[str, Any], *, deadline: float | None = None
    ) -> Generator[Chunk | Prediction, None, None]:
        with self._shown(inputs) as shown:
            items = super().stream(_WatchedClient(client, self), inputs, deadline=deadline)
            with contextlib.closing(items):
                for item in items:
                    yield item if isinstance(item, Chunk) else shown.take(item)

    async def astream(
        self, client: Any, inputs: Mapping[str, Any], *, deadline: float | None = None
    ) -> AsyncGenerator[Chunk | Prediction, None]:
        with self._shown(inputs) as shown:
            items = super().astream(_WatchedClient(client, self), inputs, deadline=deadline)
            async with contextlib.aclosing(items):
                async for item in items:
                    yield item if isinstance(item, Chunk) else shown.take(item)

    # -- its steps ---------------------------------------------------------------------------------------------------

    def _question(self, call: Any, compiled: CompiledSignature) -> Any:
        given = {"signature": str(compiled.signature), "demos": list(self.demos), "inputs": dict(call.inputs)}
        begun = self._observer.begin("adapter_format", compiled.dspy_adapter, given, parent=self._parent)
        try:
            question = super()._question(call, compiled)
        except Exception as error:  # observers see every end
            begun.end(None, error)
            raise
        begun.end(question.messages)
        question.reader = _WatchedReader(question.reader, self._observer, self._parent)
        return question

    @contextlib.contextmanager
    def _shown(self, inputs: Mapping[str, Any]) -> Generator[_ShownCall]:
        observer, inner = self._observer, None
        kind = self._module.partition(".")[2]
        outer = observer.begin("module", kind, dict(inputs), name="" if self.name != "self" else self.name)
        if self.name != "self":  # a module of DSPy's around its predictor
            inner = observer.begin("module", "Predict", dict(inputs), name=self.name, parent=outer.call_id)
        predictor = inner or outer
        self._parent = predictor.call_id
        shown = _ShownCall(self, inputs, predictor.began)
        error: BaseException | None = None
        try:
            yield shown
        except BaseException as raised:  # also Ctrl-C and a cancel: what has begun is shown to end
            error = raised
            raise
        finally:
            for begun in (inner, outer):
                if begun is not None:
                    begun.end(shown.prediction, error)


class _ShownCall:
    """One call, its prediction, and the trace that it gets."""

    def __init__(self, predictor: WatchedPredictor, inputs: Mapping[str, Any], began: float) -> None:
        self.prediction: Prediction | None = None
        self._predictor = predictor
        self._inputs = inputs
        self._began = began

    def take(self, made: Prediction) -> Prediction:
        """Return the prediction, with a trace if one is wanted."""
        predictor = self._predictor
        if predictor._observer.watch.trace:
            seconds = time.monotonic() - self._began
            step = TraceStep(
                predictor.name,
                dict(self._inputs),
                made.to_dict(),
                seconds=seconds,
                began=time.time() - seconds,
                usage=made.usage,
                finish_reason=made.finish_reason,
                cached=made.cached,
            )
            made = with_facts(made, trace=(step,))
        self.prediction = made
        return made


class _WatchedReader(ReplyReader):
    """Reads a reply, and shows that."""

    def __init__(self, reader: ReplyReader, observer: Observer, parent: str | None) -> None:
        super().__init__(reader.signature, reader.compiled, reader.started, reader.deadline)
        self._observer = observer
        self._parent = parent

    def read(self, completion: ReadableCompletion) -> Outputs | AdapterParseError:
        with self._shown(completion) as found:
            outputs = super().read(completion)
            found.append(outputs)
        return outputs

    async def aread(self, completion: ReadableCompletion) -> Outputs | AdapterParseError:
        with self._shown(completion) as found:
            outputs = await super().aread(completion)
            found.append(outputs)
        return outputs

    @contextlib.contextmanager
    def _shown(self, completion: ReadableCompletion) -> Generator[list[Any]]:
        given = {"signature": str(self.compiled.signature), "completion": (completion.texts or [""])[0]}
        begun = self._observer.begin("adapter_parse", self.compiled.dspy_adapter, given, parent=self._parent)
        found: list[Any] = []
        try:
            yield found
        except BaseException as error:  # as above
            begun.end(None, error)
            raise
        outputs = found[0]
        if isinstance(outputs, AdapterParseError):
            begun.end(None, outputs)
        else:
            begun.end(dict(outputs[0]))


class _WatchedClient:
    """The LM client, as far as a predictor uses it; shows what is asked and answered."""

    def __init__(self, client: Any, predictor: WatchedPredictor) -> None:
        self._client = client
        self._predictor = predictor
        self.emit = client.emit

    def complete(self, lm: Any, messages: Sequence[Message], **options: Any) -> Completion:
        with _Asking(self._predictor, lm, messages, options) as asking:
            return asking.answered(self._client.complete(lm, messages, **options))

    async def acomplete(self, lm: Any, messages: Sequence[Message], **options: Any) -> Completion:
        with _Asking(self._predictor, lm, messages, options) as asking:
            return asking.answered(await self._client.acomplete(lm, messages, **options))

    def stream(self, lm: Any, messages: Sequence[Message], **options: Any) -> Generator[str | Completion, None, None]:
        items = self._client.stream(lm, messages, **options)
        with _Asking(self._predictor, lm, messages, options) as asking, contextlib.closing(items):
            for item in items:
                yield item if isinstance(item, str) else asking.answered(item)

    async def astream(
        self, lm: Any, messages: Sequence[Message], **options: Any
    ) -> AsyncGenerator[str | Completion, None]:
        with _Asking(self._predictor, lm, messages, options) as asking:
            async with contextlib.aclosing(self._client.astream(lm, messages, **options)) as items:
                async for item in items:
                    yield item if isinstance(item, str) else asking.answered(item)


class _Asking:
    """One question to a language model."""

    def __init__(self, predictor: WatchedPredictor, lm: Any, messages: Sequence[Message], options: Any) -> None:
        self._predictor = predictor
        self._observer = predictor._observer
        self._lm = lm
        self._messages = copy.copy(messages)
        given = {**(options.get("config") or {}), "response_format": options.get("response_format")}
        self._options = {name: value for name, value in given.items() if value is not None}
        self._outputs: list[Any] | None = None

    def __enter__(self) -> _Asking:
        given = {"prompt": None, "messages": self._messages, "kwargs": dict(self._options)}
        who = {"model": self._lm.model, "parent": self._predictor._parent}
        self._begun = self._observer.begin("lm", "LM", given, **who)
        return self

    def answered(self, completion: Completion) -> Completion:
        """Take the answer, and return it."""
        secrets = getattr(self._lm, "secrets", ())
        self._outputs = outputs = without(_outputs(completion), secrets)
        if self._observer.watch.histories:
            self._record(
                text=text_in(outputs),
                outputs=outputs,
                usage=completion.usage,
                cost_usd=completion.cost,
                cached=completion.cached,
                finish_reason=completion.finish_reasons[0],
            )
        return completion

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._outputs is None and error is not None and self._observer.watch.histories:
            said = without(f"{type(error).__name__}: {error}", getattr(self._lm, "secrets", ()))
            self._record(text="", error=said)
        self._begun.end(self._outputs, error)

    def _record(self, **facts: Any) -> None:
        self._observer.record(
            HistoryEntry(
                messages=messages_kept(self._messages, self._lm),
                model=self._lm.model,
                options=self._options,
                predictor=self._predictor.name,
                seconds=self._begun.seconds,
                **facts,
            )
        )


def _outputs(completion: Completion) -> list[Any]:
    """Return the answers as DSPy has them: texts, or mappings where one is more than a text."""
    made = []
    for at, text in enumerate(completion.texts):
        calls, thought = completion.tool_calls[at], completion.reasoning[at]
        more = {"reasoning_content": thought, "tool_calls": calls}
        made.append({"text": text, **{name: value for name, value in more.items() if value}})
    return [each["text"] for each in made] if all(len(each) == 1 for each in made) else made
