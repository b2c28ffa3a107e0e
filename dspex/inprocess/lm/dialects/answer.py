"""What a dialect makes of a response: `Answer`, the base of stream readers, and JSON as the wire wants it."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Protocol

from dspex.errors import (
    InvalidInput,
    LMError,
    LMProviderError,
    LMStreamAssemblyError,
    LMTransportError,
    LMUnexpectedError,
)

if TYPE_CHECKING:
    from dspex.inprocess.lm.record import LM

Message = Mapping[str, Any]
Details = Sequence[tuple[str, Any]]
EVENT_LIMIT = 1024 * 1024

_DECODE = json.JSONDecoder().raw_decode
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
quoted = encode_basestring  # a text as JSON
quoted_once = lru_cache(maxsize=256)(quoted)  # for system messages: long, and the same for every call of a program
COUNT_MOST = 10**12  # tokens of one response; sums and prices of what is beyond would not fit a float
BODY_CHECKED = 1024 * 1024  # bytes; a longer body is looked at before it is read
BODY_VALUES = 1_000_000  # objects, lists and items in it: 0.2 s and 250 MB, during which no other thread runs


@dataclass(slots=True)  # one for each response: a frozen one takes three times as long to make
class Answer:
    """One choice of a response. `text` is None when the model sent no text at all (only tool calls, or a refusal)."""

    text: str | None
    model: str
    finish_reason: str = "stop"
    usage: dict[str, Any] = field(default_factory=dict)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    reasoning: str | None = None


class Dialect(Protocol):
    """What a dialect can do; `openai` and `anthropic` are modules of this shape."""

    def endpoint(self, lm: LM) -> str:
        """The URL of a completion."""

    def body(self, lm: LM, messages: Sequence[Message], options: Mapping[str, Any], stream: bool) -> bytes:
        """The request's body."""

    def answer(self, lm: LM, body: bytes) -> Answer:
        """A 200 response's body, read."""

    def reader(self, lm: LM) -> StreamReader:
        """A reader for a streamed response."""

    def failure(self, lm: LM, status: int, body: bytes) -> LMError:
        """The error that a response of 400 and more stands for."""


class StreamReader(ABC):
    """Reads server-sent events: feed it bytes, get text deltas, then `finish()` for the whole answer."""

    def __init__(self, lm: LM) -> None:
        self.lm = lm
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[int, dict[str, str]] = {}
        self.usage: dict[str, Any] = {}
        self.model = lm.name
        self.finish_reason: str | None = None
        self.ended = False
        self._pending = b""

    def feed(self, data: bytes) -> list[str]:
        """The text that arrived, in order.

        Raises:
            LMError: the provider reported an error inside the stream.
        """
        data = (self._pending + data).replace(b"\r\n", b"\n")  # after joining: a line end may be cut in two
        *events, self._pending = data.split(b"\n\n")
        if len(self._pending) > EVENT_LIMIT:
            raise LMTransportError("A streamed event is over 1 MiB.", model=self.lm.model)
        before = len(self.text)
        for event in events:
            self._event(event)
        return self.text[before:]

    def finish(self) -> Answer:
        """The whole answer.

        Raises:
            LMStreamAssemblyError: the stream ended before the provider said so.
        """
        if self._pending.strip():
            self._event(self._pending)
            self._pending = b""
        if not self.ended:
            raise LMStreamAssemblyError("The stream ended before the answer was whole.", model=self.lm.model)
        calls = [self._call(self.calls[index]) for index in sorted(self.calls)]
        text = "".join(self.text)
        return Answer(
            text=text if self.text or not calls else None,
            model=self.model,
            finish_reason="tool_call" if calls else self.finish_reason or "stop",
            usage=self.usage,
            tool_calls=calls,
            reasoning="".join(self.reasoning) or None,
        )

    @abstractmethod
    def _data(self, payload: dict[str, Any]) -> None:
        """Take one event's JSON object."""

    def _event(self, event: bytes) -> None:
        lines = [line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if not lines:
            return
        data = b"\n".join(lines)
        if data == b"[DONE]":
            self.ended = True
            return
        try:
            payload = json.loads(data)
        except ValueError:
            raise LMUnexpectedError("The stream holds an event that is not JSON.", model=self.lm.model) from None
        if isinstance(payload, dict):
            self._data(payload)

    def _fragment(self, index: int, id: str | None, name: str | None, arguments: str) -> None:
        call = self.calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        call["id"] = call["id"] or id or ""
        call["name"] = call["name"] or name or ""
        call["arguments"] += arguments

    def _call(self, call: dict[str, str]) -> dict[str, Any]:
        if not call["name"]:
            raise LMStreamAssemblyError("The model streamed a tool call without a name.", model=self.lm.model)
        return tool_call(call["id"] or "call_0", call["name"], json_object(call["arguments"]))


def encode(payload: Mapping[str, Any]) -> bytes:
    """The payload as the wire wants it.

    Raises:
        InvalidInput: text that has no UTF-8 form (a lone surrogate), or a value that is not JSON.
    """
    return _utf8(json_text(payload))


def encode_chat(model: str, messages: Sequence[str], rest: Mapping[str, Any]) -> bytes:
    """`{"model": ..., "messages": [...], **rest}`, of messages that are JSON already. Raises: as `encode`."""
    last = f",{json_text(rest)[1:]}" if rest else "}"
    return _utf8(f'{{"model":{quoted(model)},"messages":[{",".join(messages)}]{last}')


def json_text(value: Mapping[str, Any]) -> str:
    """The value as compact JSON. Raises: InvalidInput when it is none."""
    try:
        return _ENCODE(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The request holds a value that is not JSON: {error}.") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        bad = ord(error.object[error.start])
        raise InvalidInput(
            f"The request holds text that is not valid Unicode (a lone surrogate, U+{bad:04X})."
        ) from None


def decode(lm: LM, body: bytes) -> dict[str, Any]:
    """A response's JSON object.

    Raises:
        LMProviderError: the body is not one (a gateway's HTML page behind a 200, say), or holds too many values.
    """
    if len(body) > BODY_CHECKED and (values := sum(map(body.count, (b"{", b"[", b",")))) > BODY_VALUES:
        raise LMProviderError(
            f"The reply of {len(body):,} bytes holds some {values:,} values, over {BODY_VALUES:,}: it is not read.",
            model=lm.model,
            provider=lm.provider.id,
            status=200,
        )
    try:
        text = body.decode()
        data, end = _DECODE(text)  # json.loads would look for the encoding and for blanks first: 5 us
        if end != len(text) and not text[end:].isspace():
            data = None
    except ValueError:
        data = _loads(body)
    if not isinstance(data, dict):
        raise LMProviderError(
            f"The reply of {len(body)} bytes is not a JSON object; a gateway or proxy in front of the provider is the "
            f"usual cause.",
            model=lm.model,
            provider=lm.provider.id,
            status=200,
        )
    return data


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def as_object(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one: providers send null where they mean nothing."""
    return value if isinstance(value, dict) else {}


def tool_call(id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A tool call in the shape that DSPy's adapters read."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def json_object(text: Any) -> dict[str, Any]:
    """The arguments of a tool call; anything but an object reads as {} (models do send that)."""
    if isinstance(text, dict):
        return text
    try:
        value = json.loads(text) if isinstance(text, str) and text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def count(value: Any) -> int | float | None:
    """A token counter as a provider sends it; None for anything that is no count, however many digits it has."""
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return value if is_count and value <= COUNT_MOST else None


def counters(
    prompt: float | None,
    completion: float | None,
    total: float | None,
    prompt_details: Details,
    completion_details: Details,
) -> dict[str, Any]:
    """Token counters in DSPy's shape: only what was reported, details present as None when the rest is."""
    found: dict[str, Any] = {}
    if prompt is not None:
        found["prompt_tokens"] = prompt
    if completion is not None:
        found["completion_tokens"] = completion
    if total is not None:
        found["total_tokens"] = total
    in_prompt = _reported(prompt_details) if prompt_details else None
    in_completion = _reported(completion_details) if completion_details else None
    if found or in_prompt or in_completion:
        found["prompt_tokens_details"] = in_prompt
        found["completion_tokens_details"] = in_completion
    return found


def _reported(details: Details) -> dict[str, Any] | None:
    return {name: value for name, found in details if (value := count(found)) is not None} or None
