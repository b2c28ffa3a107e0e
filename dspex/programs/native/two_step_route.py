"""Predict natively in two steps: one model answers in plain words, another takes the outputs out of that answer.

As DSPy's TwoStepAdapter does it: the second step is a question of its own for each answer of the first, in the chat
format, with the extraction model's own options. Its request passes the same cache, limits and budgets.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...adapters.reply_reader import Outputs, ReadableCompletion, ReplyReader
from ...adapters.two_step_format import TEXT, extraction, require_unmarked, unread
from ...errors import AdapterParseError
from ...types.prediction import Prediction
from .exchange_steps import NativeAnswer, NativeCall, NativeQuestion, finish_reason, logprobs_in
from .native_route import NativePredictor
from .usage_total import UsageTotal


class TwoStepPredictor(NativePredictor):
    """Asks an LM, and another for the outputs in what it answered. Any thread, any event loop."""

    @cached_property
    def second(self) -> NativePredictor:
        """The predictor of the second step."""
        asked = extraction(self.signature)
        return NativePredictor(asked, self.extraction_lm or self.lm, adapter="chat", name=self.name)

    def unsupported(self) -> str | None:
        """Return why a step needs a worker; None when both can be served here."""
        return self.compiled.unsupported or self.second.compiled.unsupported_with(self.second.lm)

    def _exchange(self, call: NativeCall) -> Generator[NativeQuestion, NativeAnswer, Prediction]:
        total, found = UsageTotal(), list[Prediction]()
        question = self._question(call, self.compiled)
        question.reader = FirstStepReader.of(question.reader)
        first = yield question
        total.add(self.lm.model, first.completion)
        for text in first.completion.texts or [""]:
            found.append((yield from self._extracted(text, call)))
            total.add_prediction(found[-1])
        outputs = [dict(each) for each in found]
        return Prediction(
            outputs[0],
            completions=outputs,
            usage=total.usage,
            cached=total.is_cached,
            cost_usd=total.cost,
            finish_reason=found[-1].finish_reason or finish_reason(first.completion),
            logprobs=logprobs_in(first.completion, len(outputs)) if self.asks_logprobs else (),
        )

    def _extracted(self, text: str | None, call: NativeCall) -> Generator[NativeQuestion, NativeAnswer, Prediction]:
        """Ask for the outputs in one answer.

        Raises:
            AdapterParseError: the answer is empty, or the second model's cannot be read either.
        """
        if not text:
            raise AdapterParseError(
                "The model returned an empty answer.",
                adapter=self.compiled.dspy_adapter,
                expected=tuple(self.signature.output_fields),
            )
        require_unmarked(self.signature, text)
        second = NativeCall({TEXT: text}, dict(self.second.settings), call.started, call.deadline)
        with self._parsing(text) as (asking, found):
            try:
                made = yield from asking._exchange(second)
            except AdapterParseError as error:
                raise unread(self.signature, text, str(error)) from error
            found.update(made)
        return made

    def _parsing(self, text: str) -> AbstractContextManager[tuple[NativePredictor, dict[str, Any]]]:
        """Return a block in which an answer is read: who asks for its outputs, and where these are put."""
        return nullcontext((self.second, {}))


@dataclass(slots=True)
class FirstStepReader(ReplyReader):
    """Reads nothing out of a first step's answer: the second step does."""

    @classmethod
    def of(cls, reader: ReplyReader) -> FirstStepReader:
        """Return one with the same signature and times."""
        return cls(reader.signature, reader.compiled, reader.started, reader.deadline)

    def read(self, completion: ReadableCompletion) -> Outputs | AdapterParseError:
        return []

    async def aread(self, completion: ReadableCompletion) -> Outputs | AdapterParseError:
        return []
