"""Script a fake model: the forms of a script, and the wording of a reply for a request. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Plain = str | Mapping[str, Any]
_WANTED = re.compile(r"`(?:\[\[ ## (\w+) ## \]\]|(\w+))`")


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """A request that the fake model received."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes = b""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages as they were sent."""
        return list(self.body.get("messages") or ())

    @property
    def text(self) -> str:
        """The text of all messages, the system prompt first."""
        parts = [_text_of(self.body["system"])] if self.body.get("system") else []
        return "\n".join([*parts, *(_text_of(message.get("content")) for message in self.messages)])

    @property
    def last(self) -> str:
        """The text of the last message."""
        return _text_of(self.messages[-1].get("content")) if self.messages else ""


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


Answer = Plain | FakeReply
Script = str | Sequence[Answer] | Mapping[Any, Answer] | Callable[[list[dict[str, Any]]], Answer]


class NoAnswerLeft(LookupError):
    """The script has no answer for this request; the message holds the reason."""


def player(script: Script, *, cycle: bool) -> Callable[[FakeRequest], FakeReply]:
    """Return a function from requests to replies that plays the script."""
    if callable(script):
        return lambda request: _reply(script(request.messages))
    if isinstance(script, str):
        return lambda request: FakeReply(script)
    if isinstance(script, Mapping):
        return _matcher(script)
    return _sequence(list(script), cycle)


def words_for(request: FakeRequest, answer: Plain | None) -> str | None:
    """Return the answer as text: a dict is worded as DSPy's chat, JSON or XML adapter would read it."""
    if answer is None or isinstance(answer, str):
        return answer
    wanted = wanted_fields(request)
    fields = dict(answer)
    if "reasoning" in wanted and "reasoning" not in fields:
        fields = {"reasoning": "It follows from the inputs.", **fields}
    style = style_of(request)
    if style == "chat":
        blocks = [f"[[ ## {name} ## ]]\n{_value(value)}" for name, value in fields.items()]
        return "\n\n".join([*blocks, "[[ ## completed ## ]]\n"])
    if style == "xml":
        return "\n\n".join(f"<{name}>\n{_value(value)}\n</{name}>" for name, value in fields.items())
    return json.dumps(fields, ensure_ascii=False)


def style_of(request: FakeRequest) -> str:
    """Return which adapter wrote the request: "chat", "xml" or "json"."""
    form = request.body.get("response_format") or (request.body.get("output_config") or {}).get("format")
    text = request.text
    if form is not None or "Outputs will be a JSON object" in text:
        return "json"
    if "[[ ## completed ## ]]" in text:
        return "chat"
    if re.search(r"<(\w+)>\n\{\1\}", text):
        return "xml"
    return "json"


def wanted_fields(request: FakeRequest) -> list[str]:
    """Return the output fields that the last message asks for."""
    _, _, ask = request.last.rpartition("Respond with ")
    return [first or second for first, second in _WANTED.findall(ask) if (first or second) != "completed"]


def _sequence(answers: list[Answer], cycle: bool) -> Callable[[FakeRequest], FakeReply]:
    left: Iterator[Answer] = iter(answers)
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
        return _reply(answer)

    return play


def _matcher(answers: Mapping[Any, Answer]) -> Callable[[FakeRequest], FakeReply]:
    def play(request: FakeRequest) -> FakeReply:
        for where in (request.last, request.text):
            for pattern, answer in answers.items():
                if pattern.search(where) if isinstance(pattern, re.Pattern) else str(pattern) in where:
                    return _reply(answer)
        raise NoAnswerLeft(f"None of FakeLM's {len(answers)} pattern(s) is in the request.")

    return play


def _reply(answer: Answer) -> FakeReply:
    return answer if isinstance(answer, FakeReply) else FakeReply(answer)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text") or "") for block in content or () if isinstance(block, dict))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
