"""Predict natively: inputs to messages, a model's answer to a Prediction, with DSPy's semantics.

The exchange with the model is written once, as a generator of requests; the four verbs differ only in how they get
an answer (blocking, awaiting, streaming). This file opens nothing and runs on the caller's thread or event loop;
transport, cache, retries and limits are the LM client's. What cannot run here says so in
`CompiledSignature.unsupported`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...adapters.compiled_signature import CompiledSignature, Demo, Message, compile_signature
from ...adapters.function_calling import asked_signature, call_options
from ...adapters.injection import suspected_fields
from ...adapters.reply_reader import ReplyReader
from ...adapters.validation import checked_inputs
from ...errors import AdapterParseError, InvalidInput, LMTimeoutError
from ...events import Name
from ...lm.record_facts import thinks
from ...signatures.signature import Signature
from ...types.chunk import Chunk
from ...types.prediction import Prediction
from .exchange_steps import (
    ASKED_AGAIN,
    LanguageModel,
    NativeAnswer,
    NativeCall,
    NativeQuestion,
    default_adapter,
    finish_reason,
    logprobs_in,
    may_be_asked_again,
    native_calls,
)
from .streamed_fields import StreamedFields, parts_of
from .usage_total import UsageTotal

if TYPE_CHECKING:
    from ...adapters.adapter_record import AdapterRecord

TEMPERATURE_OF_SEVERAL = 0.7  # the temperature of several answers to one question


class NativePredictor:
    """Asks one LM for one signature's outputs; holds all that its calls have in common. Any thread, any event loop.

    Options: adapter (a name, or a record with options; default: json for an LM with structured_outputs, else chat),
    demos, config (a mapping that goes over the LM's own options), rollout_id, allow_markers,
    use_native_function_calling (None: as the adapter has it), name (the predictor's, as DSPy has it in its program).

    When an answer in chat or xml cannot be read, the same question is asked once more in the json format, as in DSPy.
    Of "two_step" this is the first step: see `TwoStepPredictor`.
    """

    extraction_lm: Any = None  # the LM of a second step; None for the same one

    def __init__(
        self,
        sig: Signature,
        lm: LanguageModel,
        *,
        adapter: str | AdapterRecord | None = None,
        demos: Sequence[Demo] = (),
        config: Mapping[str, Any] | None = None,
        rollout_id: int | None = None,
        allow_markers: bool = False,
        use_native_function_calling: bool | None = None,
        name: str = "self",
    ) -> None:
        self.signature = sig
        self.name = name
        self.lm = lm
        self.record = None if adapter is None or isinstance(adapter, str) else adapter
        self.adapter = str(adapter or default_adapter(lm)) if self.record is None else self.record.name
        self.demos = demos
        self.allow_markers = allow_markers
        self.uses_native_calls = native_calls(self.record or self.adapter, use_native_function_calling)
        self.asks_again = self.adapter in ASKED_AGAIN and (self.record is None or self.record.use_json_adapter_fallback)
        self.config = dict(config or {})
        self.rollout_id = self.config.pop("rollout_id", None) if rollout_id is None else rollout_id

    @cached_property
    def generations(self) -> int:
        """The number of answers that each call asks for."""
        return self.config.get("n") or self.lm.n or 1

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The options of each request; for several answers at the temperature that DSPy sets then (predict.py).

        Unlike DSPy's, not for a model that refuses another temperature than its own.
        """
        temperature = self.config.get("temperature") or self.lm.temperature
        is_low = temperature is None or temperature <= 0.15
        if self.generations == 1 or not is_low:
            return self.config
        is_fixed = getattr(self.lm, "is_temperature_fixed", False) or thinks(self.config)
        return self.config if is_fixed else {**self.config, "temperature": TEMPERATURE_OF_SEVERAL}

    @cached_property
    def asks_logprobs(self) -> bool:
        """Whether the log probabilities of the answers' tokens are asked for."""
        asked = self.config.get("logprobs")
        return bool(asked if asked is not None else dict(getattr(self.lm, "config", ())).get("logprobs"))

    @cached_property
    def compiled(self) -> CompiledSignature:
        """The compiled signature; its `unsupported` is the reason why it cannot run here.

        Raises:
            InvalidInput: an output of tool calls without an input of tools, where function calling is native.
        """
        return self.compiled_for(self.adapter)

    def compiled_for(self, adapter: str) -> CompiledSignature:
        """Return the signature for an adapter, without its tools where the model is given them natively."""
        sig, is_native = self.signature, self.uses_native_calls
        if is_native and adapter != "two_step":
            sig = asked_signature(sig, self.lm, is_native)
        return compile_signature(sig, adapter, use_native_function_calling=is_native)

    def unsupported(self) -> str | None:
        """Return why the signature with this LM needs a worker; None when it can be served here."""
        return self.compiled.unsupported_with(self.lm)

    # -- asking --------------------------------------------------------------------------------------------------

    def predict(self, client: Any, inputs: Mapping[str, Any], *, deadline: float | None = None) -> Prediction:
        """Return the model's outputs for these inputs; `deadline` is a time.monotonic() point.

        Raises:
            InvalidInput, UnsafeInput, EncodeError: the inputs are not what the signature takes.
            LMError: the model could not be asked.
            AdapterParseError: its answer cannot be read.
            CallTimeout: the deadline passed.
        """
        exchange = self._exchange(self._call(client, inputs, deadline))
        step = _next(exchange)
        while isinstance(step, NativeQuestion):
            try:
                completion = client.complete(step.lm, step.messages, **step.options)
            except LMTimeoutError as error:
                step.reader.require_in_time(error)
                raise
            step = _next(exchange, NativeAnswer(completion, step.reader.read(completion)))
        return step

    async def apredict(self, client: Any, inputs: Mapping[str, Any], *, deadline: float | None = None) -> Prediction:
        """`predict` for event loops."""
        exchange = self._exchange(self._call(client, inputs, deadline))
        step = _next(exchange)
        while isinstance(step, NativeQuestion):
            try:
                completion = await client.acomplete(step.lm, step.messages, **step.options)
            except LMTimeoutError as error:
                step.reader.require_in_time(error)
                raise
            step = _next(exchange, NativeAnswer(completion, await step.reader.aread(completion)))
        return step

    def stream(
        self, client: Any, inputs: Mapping[str, Any], *, deadline: float | None = None
    ) -> Generator[Chunk | Prediction, None, None]:
        """Yield chunks of the output fields as they arrive, then the Prediction.

        Errors as for `predict`; once a chunk was given, an unreadable answer is not asked for again.
        """
        self._require_one_generation()
        exchange = self._exchange(self._call(client, inputs, deadline))
        step = _next(exchange)
        while isinstance(step, NativeQuestion):
            fields = StreamedFields(step.reader.compiled, self.name)
            try:
                with contextlib.closing(client.stream(step.lm, step.messages, **step.options)) as items:
                    for item in items:
                        yield from fields.chunks(item)
            except LMTimeoutError as error:
                step.reader.require_in_time(error)
                raise
            yield from fields.last()
            completion = fields.completion()
            step = _next(exchange, NativeAnswer(completion, step.reader.read(completion), fields.was_shown))
        yield step

    async def astream(
        self, client: Any, inputs: Mapping[str, Any], *, deadline: float | None = None
    ) -> AsyncGenerator[Chunk | Prediction, None]:
        """`stream` for event loops."""
        import asyncio

        self._require_one_generation()
        exchange = self._exchange(self._call(client, inputs, deadline))
        step = _next(exchange)
        while isinstance(step, NativeQuestion):
            fields = StreamedFields(step.reader.compiled, self.name)
            # Closed by the consumer's own close: an abandoned request must not go on until the collector finds it.
            try:
                async with contextlib.aclosing(client.astream(step.lm, step.messages, **step.options)) as items:
                    async for item in items:
                        for part in parts_of(item):
                            for chunk in fields.chunks(part):
                                yield chunk
                            if part is not item:
                                await asyncio.sleep(0)  # others' turn: a cached answer comes in one piece
            except LMTimeoutError as error:
                step.reader.require_in_time(error)
                raise
            for chunk in fields.last():
                yield chunk
            completion = fields.completion()
            answer = NativeAnswer(completion, await step.reader.aread(completion), fields.was_shown)
            step = _next(exchange, answer)
        yield step

    def render(self, inputs: Mapping[str, Any]) -> list[Message]:
        """Return the messages that the first request would hold; nothing is sent.

        Raises:
            InvalidInput, UnsafeInput, EncodeError: the inputs are not what the signature takes.
        """
        checked = checked_inputs(self.signature, inputs, allow_markers=self.allow_markers)
        return self._question(NativeCall(checked, dict(self.settings), time.monotonic(), None), self.compiled).messages

    # -- the exchange --------------------------------------------------------------------------------------------

    def _call(self, client: Any, inputs: Mapping[str, Any], deadline: float | None) -> NativeCall:
        """Check the inputs, before anything is sent."""
        if suspected := suspected_fields(inputs):
            client.emit(Name.INPUT_SUSPECTED, fields=",".join(suspected), route="native")
        checked = checked_inputs(self.signature, inputs, allow_markers=self.allow_markers)
        return NativeCall(checked, dict(self.settings), time.monotonic(), deadline)

    def _exchange(self, call: NativeCall) -> Generator[NativeQuestion, NativeAnswer, Prediction]:
        total = UsageTotal()
        compiled = self.compiled
        answer = yield self._question(call, compiled)
        total.add(self.lm.model, answer.completion)
        if isinstance(answer.outputs, AdapterParseError) and self.asks_again and may_be_asked_again(answer):
            compiled = self.compiled_for("json")
            if not compiled.unsupported:
                answer = yield self._question(call, compiled)
                total.add(self.lm.model, answer.completion)
        outputs = answer.outputs
        if isinstance(outputs, AdapterParseError):
            raise outputs
        return Prediction(
            outputs[0],
            completions=outputs,
            usage=total.usage,
            cached=total.is_cached,
            cost_usd=total.cost,
            finish_reason=finish_reason(answer.completion),
            logprobs=logprobs_in(answer.completion, len(outputs)) if self.asks_logprobs else (),
        )

    def _question(self, call: NativeCall, compiled: CompiledSignature) -> NativeQuestion:
        settings = call.settings
        format_ = self._response_format(compiled)
        if format_ is not None:
            settings.pop("response_format", None)
        if settings or self.uses_native_calls:
            is_parallel = None if self.record is None else self.record.parallel_tool_calls
            call_options(self.signature, self.lm, self.uses_native_calls, settings, call.inputs, is_parallel)
        return NativeQuestion(
            self.lm,
            ReplyReader(self.signature, compiled, call.started, call.deadline),
            compiled.messages(call.inputs, self.demos, allow_markers=self.allow_markers),
            {
                "config": dict(settings),
                "response_format": format_,
                "rollout_id": self.rollout_id,
                "deadline": call.deadline,
            },
        )

    def _response_format(self, compiled: CompiledSignature) -> dict[str, Any] | None:
        if not compiled.is_object:
            return None
        if self.lm.supports_schema:
            # Of the whole signature: DSPy chooses the format before it takes the tools out of the prompt.
            whole = compile_signature(self.signature, "json", use_native_function_calling=self.uses_native_calls)
            return whole.response_format()
        return {"type": "json_object"} if _takes_format(self.lm) else None

    def _require_one_generation(self) -> None:
        if self.generations > 1:
            raise InvalidInput("Several generations (n > 1) cannot be streamed; use predict.", field="n")


def _next(
    exchange: Generator[NativeQuestion, NativeAnswer, Prediction], answer: NativeAnswer | None = None
) -> NativeQuestion | Prediction:
    try:
        return next(exchange) if answer is None else exchange.send(answer)
    except StopIteration as end:
        made: Prediction = end.value
        return made


def _takes_format(lm: LanguageModel) -> bool:
    """Return whether any response format may be sent to a model without schemas (dspy/clients/capabilities.py)."""
    return lm.supports_tools and getattr(getattr(lm, "provider", None), "dialect", "openai") == "openai"
