"""Native predict: inputs to messages, messages to a model, its answer to a Prediction; with DSPy's semantics.

The exchange with the model is written once, as a generator of requests; the four verbs differ only in how they get
an answer (blocking, awaiting, streaming). This file opens nothing and runs on the caller's thread or event loop;
transport, cache, retries and limits are the LM client's. What cannot run here says so in
`CompiledSignature.unsupported`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..adapters.compiled_signature import CompiledSignature, Demo, Message, compile_signature
from ..adapters.function_calling import (
    asked_signature,
    call_options,
    is_native_by_default,
)
from ..adapters.injection import suspected_fields
from ..adapters.reply_reader import LOOP_CHARS_MOST, Outputs, ReadableCompletion, ReplyReader
from ..adapters.streaming import ChatFields, JsonFields
from ..adapters.validation import checked_inputs, typed_outputs, wire_inputs
from ..errors import AdapterParseError, InvalidInput
from ..events import Name
from ..signatures.signature import Signature, SignatureLike, signature
from ..types.prediction import Prediction

__all__ = [
    "Chunk",
    "apredict",
    "apredict_stream",
    "checked_inputs",
    "default_adapter",
    "predict",
    "predict_stream",
    "typed_outputs",
    "wire_inputs",
]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one output field; the pieces of a text field, joined, are its value."""

    field: str
    text: str


class LanguageModel(Protocol):
    """What the exchange reads of an LM record."""

    @property
    def model(self) -> str: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def n(self) -> int: ...
    @property
    def structured_outputs(self) -> bool: ...
    @property
    def supports_schema(self) -> bool: ...
    @property
    def supports_tools(self) -> bool: ...


def predict(client: Any, sig: SignatureLike, inputs: Mapping[str, Any], *, lm: Any, **options: Any) -> Prediction:
    """The model's outputs for these inputs.

    Options: adapter ("chat", "json"; default: json for an LM with structured_outputs, else chat), demos, config (a
    mapping that goes over the LM's own options), rollout_id, deadline (a time.monotonic() point), allow_markers,
    use_native_function_calling (None: as DSPy's adapter has it, json yes, chat no).

    When a chat answer cannot be read, the same question is asked once more in the json format, as in DSPy.

    Raises: InvalidInput, UnsafeInput or EncodeError for the inputs; LMError; AdapterParseError; CallTimeout when the
    deadline passes while the answer is read.
    """
    exchange = _exchange(_plan(client, sig, inputs, lm, **options))
    step = _next(exchange)
    while isinstance(step, _Request):
        completion = client.complete(lm, step.messages, **step.options)
        step = _next(exchange, _NativeAnswer(completion, step.reader.read(completion)))
    return step


async def apredict(
    client: Any, sig: SignatureLike, inputs: Mapping[str, Any], *, lm: Any, **options: Any
) -> Prediction:
    """`predict` for event loops."""
    exchange = _exchange(_plan(client, sig, inputs, lm, **options))
    step = _next(exchange)
    while isinstance(step, _Request):
        completion = await client.acomplete(lm, step.messages, **step.options)
        step = _next(exchange, _NativeAnswer(completion, await step.reader.aread(completion)))
    return step


def predict_stream(
    client: Any, sig: SignatureLike, inputs: Mapping[str, Any], *, lm: Any, **options: Any
) -> Generator[Chunk | Prediction, None, None]:
    """Chunks of the output fields as they arrive, then the Prediction.

    Options and errors as for `predict`; once a chunk was given, an unreadable answer is not asked for again.
    """
    exchange = _exchange(_plan(client, sig, inputs, lm, **options, is_streamed=True))
    step = _next(exchange)
    while isinstance(step, _Request):
        fields = _Fields(step.reader.compiled)
        with contextlib.closing(client.stream(lm, step.messages, **step.options)) as items:
            for item in items:
                yield from fields.chunks(item)
        yield from fields.last()
        completion = fields.completion()
        step = _next(exchange, _NativeAnswer(completion, step.reader.read(completion), fields.was_shown))
    yield step


async def apredict_stream(
    client: Any, sig: SignatureLike, inputs: Mapping[str, Any], *, lm: Any, **options: Any
) -> AsyncGenerator[Chunk | Prediction, None]:
    """`predict_stream` for event loops."""
    import asyncio

    exchange = _exchange(_plan(client, sig, inputs, lm, **options, is_streamed=True))
    step = _next(exchange)
    while isinstance(step, _Request):
        fields = _Fields(step.reader.compiled)
        # Closed by the consumer's own close: an abandoned request must not go on until the collector finds it.
        async with contextlib.aclosing(client.astream(lm, step.messages, **step.options)) as items:
            async for item in items:
                for part in _parts(item):
                    for chunk in fields.chunks(part):
                        yield chunk
                    if part is not item:
                        await asyncio.sleep(0)  # others' turn: a cached answer comes in one piece
        for chunk in fields.last():
            yield chunk
        completion = fields.completion()
        step = _next(exchange, _NativeAnswer(completion, await step.reader.aread(completion), fields.was_shown))
    yield step


def asked(sig: Signature, adapter: str, lm: Any, uses_native_calls: bool) -> CompiledSignature:
    """What the prompt is made of: the signature, without its tools where the model is given them natively.

    Raises: InvalidInput for an output of tool calls without an input of tools, where function calling is native.
    """
    if uses_native_calls and adapter in ("chat", "json"):
        sig = asked_signature(sig, lm, uses_native_calls)
    return compile_signature(sig, adapter, use_native_function_calling=uses_native_calls)


def default_adapter(lm: LanguageModel) -> str:
    """The adapter when none is named: json for a model that is held to a schema, else chat."""
    return "json" if lm.structured_outputs else "chat"


# --- the exchange -------------------------------------------------------------------------------------------------


# Not frozen, for they are made for every call: a frozen one takes three times as long to make.


@dataclass(slots=True)
class _Plan:
    """All that one predict needs, checked before anything is sent."""

    signature: Signature
    adapter: str
    inputs: Mapping[str, Any]
    lm: LanguageModel
    demos: Sequence[Demo]
    config: Mapping[str, Any]
    rollout_id: int | None
    started: float
    deadline: float | None
    allow_markers: bool
    uses_native_calls: bool


@dataclass(slots=True)
class _Request:
    reader: ReplyReader
    messages: list[Message]
    options: dict[str, Any]


@dataclass(slots=True)
class _NativeAnswer:
    completion: ReadableCompletion
    outputs: Outputs | AdapterParseError
    was_shown: bool = False


@dataclass(slots=True)
class _Tally:
    """What the requests of one predict used."""

    usage: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    is_cached: bool = True
    cost: float | None = 0.0

    def add(self, model: str, completion: ReadableCompletion) -> None:
        self.is_cached = self.is_cached and completion.cached
        self.cost = None if self.cost is None or completion.cost is None else self.cost + completion.cost
        if completion.cached:
            return
        known = self.usage.get(model)
        self.usage[model] = dict(completion.usage) if known is None else _sum(known, completion.usage)


def _sum(total: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Both usages together: numbers are added, also in the nested details; what is no number is kept."""
    made = dict(total)
    for name, value in more.items():
        known = made.get(name)
        if isinstance(value, Mapping):
            made[name] = _sum(known or {}, value)
        elif isinstance(value, int | float) and isinstance(known, int | float):
            made[name] = known + value
        elif value is not None or known is None:
            made[name] = value
    return made


def _plan(
    client: Any,
    sig: SignatureLike,
    inputs: Mapping[str, Any],
    lm: LanguageModel,
    *,
    adapter: str | None = None,
    demos: Sequence[Demo] = (),
    config: Mapping[str, Any] | None = None,
    rollout_id: int | None = None,
    deadline: float | None = None,
    allow_markers: bool = False,
    use_native_function_calling: bool | None = None,
    is_streamed: bool = False,
) -> _Plan:
    known = sig if isinstance(sig, Signature) else signature(sig)
    settings = _settings(config or {}, lm, is_streamed)
    if suspected := suspected_fields(inputs):
        client.emit(Name.INPUT_SUSPECTED, fields=",".join(suspected), route="native")
    name, is_native = adapter or default_adapter(lm), use_native_function_calling
    return _Plan(
        signature=known,
        adapter=name,
        uses_native_calls=is_native_by_default(name) if is_native is None else is_native,
        inputs=checked_inputs(known, inputs, allow_markers=allow_markers),
        lm=lm,
        demos=demos,
        rollout_id=settings.pop("rollout_id", None) if rollout_id is None else rollout_id,
        config=settings,
        started=time.monotonic(),
        deadline=deadline,
        allow_markers=allow_markers,
    )


def _settings(config: Mapping[str, Any], lm: LanguageModel, is_streamed: bool) -> dict[str, Any]:
    """The call's own options; DSPy heats a model that is asked for several answers (predict/predict.py)."""
    settings = dict(config)
    generations = settings.get("n") or lm.n or 1
    temperature = settings.get("temperature") or lm.temperature
    if generations > 1:
        if is_streamed:
            raise InvalidInput("Several generations (n > 1) cannot be streamed; use predict.", field="n")
        if temperature is None or temperature <= 0.15:
            settings["temperature"] = 0.7
    return settings


def _exchange(plan: _Plan) -> Generator[_Request, _NativeAnswer, Prediction]:
    settings = dict(plan.config)  # the second request takes the options as the first left them, as in DSPy
    tally = _Tally()
    compiled = asked(plan.signature, plan.adapter, plan.lm, plan.uses_native_calls)
    answer = yield _request(plan, compiled, settings)
    tally.add(plan.lm.model, answer.completion)
    if isinstance(answer.outputs, AdapterParseError) and compiled.adapter != "json" and not answer.was_shown:
        compiled = asked(plan.signature, "json", plan.lm, plan.uses_native_calls)
        if not compiled.unsupported:
            answer = yield _request(plan, compiled, settings)
            tally.add(plan.lm.model, answer.completion)
    outputs = answer.outputs
    if isinstance(outputs, AdapterParseError):
        raise outputs
    return Prediction(outputs[0], completions=outputs, usage=tally.usage, cached=tally.is_cached, cost_usd=tally.cost)


def _next(
    exchange: Generator[_Request, _NativeAnswer, Prediction], answer: _NativeAnswer | None = None
) -> _Request | Prediction:
    try:
        return next(exchange) if answer is None else exchange.send(answer)
    except StopIteration as end:
        made: Prediction = end.value
        return made


def _request(plan: _Plan, compiled: CompiledSignature, settings: dict[str, Any]) -> _Request:
    format_ = _response_format(plan, compiled)
    if format_ is not None:
        settings.pop("response_format", None)
    if settings or plan.uses_native_calls:
        call_options(plan.signature, plan.lm, plan.uses_native_calls, settings, plan.inputs)
    return _Request(
        ReplyReader(plan.signature, compiled, plan.started, plan.deadline),
        compiled.messages(plan.inputs, plan.demos, allow_markers=plan.allow_markers),
        {
            "config": dict(settings),
            "response_format": format_,
            "rollout_id": plan.rollout_id,
            "deadline": plan.deadline,
        },
    )


def _response_format(plan: _Plan, compiled: CompiledSignature) -> dict[str, Any] | None:
    if compiled.adapter != "json":
        return None
    if plan.lm.supports_schema:
        # Of the whole signature: DSPy chooses the format before it takes the tools out of the prompt.
        whole = compile_signature(plan.signature, "json", use_native_function_calling=plan.uses_native_calls)
        return whole.response_format()
    return {"type": "json_object"} if _takes_format(plan.lm) else None


def _takes_format(lm: LanguageModel) -> bool:
    """Whether any response format may be sent to a model without schemas (dspy/clients/capabilities.py)."""
    return lm.supports_tools and getattr(getattr(lm, "provider", None), "dialect", "openai") == "openai"


def _parts(item: str | ReadableCompletion) -> Iterator[str | ReadableCompletion]:
    """A delta in pieces that take an event loop a few milliseconds each."""
    if not isinstance(item, str) or len(item) <= LOOP_CHARS_MOST:
        yield item
        return
    for at in range(0, len(item), LOOP_CHARS_MOST):
        yield item[at : at + LOOP_CHARS_MOST]


class _Fields:
    """The chunks of one streamed answer, and the answer at its end."""

    def __init__(self, compiled: CompiledSignature) -> None:
        wanted = compiled.signature.output_fields
        self._pieces = JsonFields(wanted) if compiled.adapter == "json" else ChatFields(wanted)
        self._completion: ReadableCompletion | None = None
        self.was_shown = False

    def chunks(self, item: str | ReadableCompletion) -> Iterator[Chunk]:
        """The chunks of a delta; the Completion, which comes last, has none."""
        if not isinstance(item, str):
            self._completion = item
            return
        for name, text in self._pieces.feed(item):
            self.was_shown = True
            yield Chunk(name, text)

    def last(self) -> Iterator[Chunk]:
        """What was held back."""
        for name, text in self._pieces.finish():
            self.was_shown = True
            yield Chunk(name, text)

    def completion(self) -> ReadableCompletion:
        """The whole answer. Raises: LMStreamAssemblyError when the stream ended without one."""
        if self._completion is None:
            from ..errors import LMStreamAssemblyError

            raise LMStreamAssemblyError("The model's stream ended without its completion.")
        return self._completion
