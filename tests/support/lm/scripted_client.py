"""A language model client for the predictor's tests: gives the answers it was made with, keeps what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from dspex.programs.native.native_route import NativePredictor
from dspex.signatures.signature import Signature, SignatureLike, signature


@dataclass
class Answer:
    """Stands for the LM layer's Completion."""

    texts: list[str]
    tool_calls: list[list[dict[str, Any]]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=lambda: {"prompt_tokens": 3, "completion_tokens": 1})
    cached: bool = False
    model: str = "m-2026"
    cost: float | None = None


@dataclass
class Model:
    """Stands for the LM record."""

    model: str = "openai/m"
    temperature: float | None = None
    n: int = 1
    structured_outputs: bool = False
    supports_schema: bool = False
    supports_tools: bool = False


class Client:
    """Gives its answers in turn; a list is one answer of several generations."""

    def __init__(self, *answers: str | list[str] | Answer, piece: int = 3) -> None:
        self.answers = [answer if isinstance(answer, Answer) else Answer(_texts(answer)) for answer in answers]
        self.asked: list[dict[str, Any]] = []
        self.piece = piece
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, name: str, **facts: Any) -> None:
        self.events.append((name, facts))

    def complete(self, lm: Model, messages: list[dict[str, Any]], **options: Any) -> Answer:
        self.asked.append({"lm": lm, "messages": messages, **options})
        return self.answers.pop(0)

    async def acomplete(self, lm: Model, messages: list[dict[str, Any]], **options: Any) -> Answer:
        return self.complete(lm, messages, **options)

    def stream(self, lm: Model, messages: list[dict[str, Any]], **options: Any) -> Iterator[str | Answer]:
        answer = self.complete(lm, messages, **options)
        for at in range(0, len(answer.texts[0]), self.piece):
            yield answer.texts[0][at : at + self.piece]
        yield answer

    async def astream(self, lm: Model, messages: list[dict[str, Any]], **options: Any) -> AsyncIterator[str | Answer]:
        for item in self.stream(lm, messages, **options):
            yield item


def _texts(answer: str | list[str]) -> list[str]:
    return [answer] if isinstance(answer, str) else answer


def native(sig: SignatureLike, lm: Any, **options: Any) -> NativePredictor:
    """The predictor of one call."""
    return NativePredictor(sig if isinstance(sig, Signature) else signature(sig), lm, **options)


def predict(
    client: Any, sig: SignatureLike, inputs: Any, *, lm: Any, deadline: float | None = None, **options: Any
) -> Any:
    return native(sig, lm, **options).predict(client, inputs, deadline=deadline)


async def apredict(
    client: Any, sig: SignatureLike, inputs: Any, *, lm: Any, deadline: float | None = None, **options: Any
) -> Any:
    return await native(sig, lm, **options).apredict(client, inputs, deadline=deadline)


def predict_stream(
    client: Any, sig: SignatureLike, inputs: Any, *, lm: Any, deadline: float | None = None, **options: Any
) -> Any:
    return native(sig, lm, **options).stream(client, inputs, deadline=deadline)


def apredict_stream(
    client: Any, sig: SignatureLike, inputs: Any, *, lm: Any, deadline: float | None = None, **options: Any
) -> Any:
    return native(sig, lm, **options).astream(client, inputs, deadline=deadline)
