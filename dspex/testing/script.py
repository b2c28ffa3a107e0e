"""Script a fake model: what it received, what it may reply, and the forms of a script. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import prompt_reader

Plain = str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """A request that the fake model received."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes = b""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages as they were sent; of the Responses API, the items of its input."""
        return list(self.body.get("messages") or self.body.get("input") or ())

    @property
    def text(self) -> str:
        """The text of all messages, the system prompt first."""
        system = self.body.get("system") or self.body.get("instructions")
        parts = [_text_of(system)] if system else []
        return "\n".join([*parts, *(_text_of(message.get("content")) for message in self.messages)])

    @property
    def last(self) -> str:
        """The text of the last message."""
        return _text_of(self.messages[-1].get("content")) if self.messages else ""

    @property
    def ask(self) -> str:
        """The text of the last message in which an adapter of DSPy's asks for fields; else of the last one."""
        texts = [_text_of(message.get("content")) for message in self.messages if message.get("role") == "user"]
        return next((text for text in reversed(texts) if "Respond with " in text), self.last)

    @property
    def inputs(self) -> dict[str, str]:
        """The inputs' values as the prompt words them, by field; empty if no adapter of DSPy's wrote it."""
        return prompt_reader.input_values(self.ask, self.input_names)

    @property
    def input_names(self) -> list[str]:
        """The input fields of the predictor that asks."""
        return prompt_reader.input_names(self.text)

    @property
    def outputs(self) -> list[str]:
        """The output fields that are asked for."""
        return prompt_reader.output_names(self.text, self.ask)

    @property
    def signature(self) -> str:
        """The predictor's signature without types, such as "question -> reasoning, answer"."""
        return f"{', '.join(self.input_names)} -> {', '.join(self.outputs)}"


@dataclass(frozen=True, slots=True)
class FakeReply:
    """One scripted reply. Only what is set differs from an ordinary answer.

    Args:
        text: The answer; a dict is worded in the format that the request asks for.
        status: An HTTP status, when it is an error.
        error: Its message, or the envelope ({"message", "code", "type"}).
        headers: Headers to add, such as {"retry-after": "1"}.
        latency: Seconds before anything is sent.
        hang: Send nothing, until the client goes away.
        chunks: The pieces in which a streamed answer arrives (default: words).
        chunk_delay: Seconds between them.
        cut: Close the connection after this many bytes of the body.
        body: Raw bytes instead of a well-formed reply.
    """

    text: Plain | None = None
    status: int = 200
    error: str | Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0
    hang: bool = False
    chunks: Sequence[str] | None = None
    chunk_delay: float = 0.0
    cut: int | None = None
    body: bytes | None = None
    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    reasoning: str | None = None
    finish_reason: str = "stop"
    usage: Mapping[str, int] | None = None

    @property
    def envelope(self) -> dict[str, Any]:
        """The content of the error's envelope."""
        if isinstance(self.error, str):
            return {"message": self.error}
        return dict(self.error or {"message": f"scripted status {self.status}"})


Player = Callable[[FakeRequest], FakeReply]
Answer = Plain | FakeReply
Scripted = Answer | Callable[[list[dict[str, Any]]], Answer]  # of the messages
Script = str | Sequence[Scripted] | Mapping[Any, Scripted] | Callable[[list[dict[str, Any]]], Answer]


class NoAnswerLeft(LookupError):
    """The script has no answer for this request; the message holds the reason."""


def player(script: Script, *, cycle: bool) -> Player:
    """Return a function from requests to replies that plays the script."""
    if callable(script):
        return lambda request: _played(script, request)
    if isinstance(script, str):
        return lambda request: FakeReply(script)
    if isinstance(script, Mapping):
        return _matcher(script)
    return _sequence(list(script), cycle)


def _sequence(answers: list[Scripted], cycle: bool) -> Player:
    left: Iterator[Scripted] = iter(answers)
    played = 0

    def play(request: FakeRequest) -> FakeReply:
        nonlocal left, played
        answer = next(left, None)
        if answer is None and cycle and answers:
            left = iter(answers)
            answer = next(left)
        if answer is None:
            raise NoAnswerLeft(f"FakeLM was given {len(answers)} answer(s) and received request number {played + 1}.")
        played += 1
        return _played(answer, request)

    return play


def _matcher(answers: Mapping[Any, Scripted]) -> Player:
    def play(request: FakeRequest) -> FakeReply:
        for where in (request.last, request.text):
            for pattern, answer in answers.items():
                if pattern.search(where) if isinstance(pattern, re.Pattern) else str(pattern) in where:
                    return _played(answer, request)
        raise NoAnswerLeft(f"None of FakeLM's {len(answers)} pattern(s) is in the request.")

    return play


def reply_of(answer: Answer) -> FakeReply:
    """Return the reply that an answer stands for."""
    return answer if isinstance(answer, FakeReply) else FakeReply(answer)


def _played(answer: Scripted, request: FakeRequest) -> FakeReply:
    return reply_of(answer(request.messages) if callable(answer) else answer)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text") or "") for block in content or () if isinstance(block, dict))
