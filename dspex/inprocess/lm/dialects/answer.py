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
    LMServerError,
    LMStreamAssemblyError,
    LMTransportError,
)
from dspex.inprocess.lm.dialects.envelopes import Fault, complaint_in, fault_in, text_fault

if TYPE_CHECKING:
    from dspex.inprocess.lm.record import LM

Message = Mapping[str, Any]
Details = Sequence[tuple[str, Any]]
EVENT_LIMIT = 1024 * 1024
PARTIAL = "partial_json"  # where arguments that are no JSON are kept, as in DSPy

_DECODE = json.JSONDecoder().raw_decode
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
quoted = encode_basestring  # a text as JSON
quoted_once = lru_cache(maxsize=256)(quoted)  # for system messages: long, and the same for every call of a program


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
    """What a dialect can do; `openai`, `anthropic` and `gemini` are modules of this shape."""

    def endpoint(self, lm: LM) -> str:
        """The URL of a completion."""

    def owns(self, lm: LM, url: str) -> bool:
        """Whether the URL is a completion of the LM's model."""

    def streams(self, url: str, asked: Mapping[str, Any]) -> bool:
        """Whether a request asks for a stream."""

    def names_another(self, lm: LM, asked: Mapping[str, Any]) -> bool:
        """Whether a request's body names another model than the record."""

    def body(self, lm: LM, messages: Sequence[Message], options: Mapping[str, Any], stream: bool) -> bytes:
        """The request's body."""

    def answer(self, lm: LM, body: bytes) -> Answer:
        """A 2xx response's body, read."""

    def mended(self, lm: LM, body: bytes) -> bytes:
        """An answer's body with tool arguments that are no objects kept where a worker's reader would empty them."""

    def usage_in(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The counters that a response or an event holds, in DSPy's shape."""

    def reader(self, lm: LM) -> StreamReader:
        """A reader for a streamed response."""

    def failure(self, lm: LM, status: int, body: bytes) -> LMError:
        """The error that a response of 400 and more stands for."""


class StreamReader(ABC):
    """Reads server-sent events: feed it bytes, get text deltas, then `finish()` for the whole answer.

    An error inside the stream, in whatever form, is raised; of a stream that is none (a JSON body, a page) the first
    event says so.
    """

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

    @property
    def has_begun(self) -> bool:
        """Whether something of an answer was read, so that it cannot be asked for again unnoticed."""
        return bool(self.text or self.reasoning or self.calls or self.finish_reason)

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
            LMServerError: the stream held no answer at all.
            LMStreamAssemblyError: the stream ended before the provider said so.
        """
        pending, self._pending = self._pending, b""
        if pending.strip():
            self._last(pending)
        if not self.has_begun:
            raise LMServerError(
                "The stream ended without an answer.", model=self.lm.model, provider=self.lm.provider.id
            )
        if not self.ended:
            raise self._cut()
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
        lines = event.split(b"\n")
        data = b"\n".join([line[5:].lstrip() for line in lines if line.startswith(b"data:")])
        is_error = any(line.startswith(b"event:") and line[6:].strip() == b"error" for line in lines)
        if data == b"[DONE]":
            self.ended = True
        elif data:
            self._take(data, is_error)
        elif is_error:
            raise text_fault("The provider reported an error inside the stream.").error(self.lm)
        elif event.lstrip()[:1] in (b"{", b"[", b"<"):
            raise self._no_stream(event)

    def _take(self, data: bytes, is_error: bool) -> None:
        try:
            payload = json.loads(data)
        except ValueError:
            text = data.decode("utf-8", "replace") if is_error else "The stream holds an event that is not JSON."
            raise text_fault(text).error(self.lm) from None
        fault = fault_in(payload)
        if fault is None and is_error:
            fault = complaint_in(payload) or text_fault(data.decode("utf-8", "replace"))
        if fault is not None:
            raise self._failed(fault)
        if isinstance(payload, dict):
            self._data(payload)
        elif payload is not None:
            raise text_fault("The stream holds an event that is no JSON object.").error(self.lm)

    def _last(self, pending: bytes) -> None:
        """What stands behind the last whole event: an event without its blank line, or half of one."""
        try:
            self._event(pending)
        except LMError:
            if not self.has_begun or fault_in(_loads(pending.partition(b"data:")[2])) is not None:
                raise
            raise self._cut() from None

    def _no_stream(self, body: bytes) -> LMError:
        """What stands there instead of a stream."""
        payload = _loads(body)
        fault = fault_in(payload)
        if fault is None and not isinstance(payload, dict | list):
            fault = text_fault(
                "The reply is no stream; a gateway or proxy in front of the provider is the usual cause."
            )
        if fault is None:
            fault = complaint_in(payload) or text_fault("The reply is whole JSON, though a stream was asked for.")
        return self._failed(fault)

    def _failed(self, fault: Fault) -> LMError:
        """The error that a fault inside the stream is."""
        return fault.error(self.lm)

    def _cut(self) -> LMError:
        return LMStreamAssemblyError("The stream ended before the answer was whole.", model=self.lm.model)

    def _finished(self, reason: str) -> None:
        self.finish_reason = reason
        self.ended = True

    def _fragment(self, index: int, id: str | None, name: str | None, arguments: str) -> None:
        call = self.calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        call["id"] = call["id"] or id or ""
        call["name"] = call["name"] or name or ""
        call["arguments"] += arguments

    def _call(self, call: dict[str, str]) -> dict[str, Any]:
        if not call["name"]:
            raise LMStreamAssemblyError("The model streamed a tool call without a name.", model=self.lm.model)
        return tool_call(call["id"] or "call_0", call["name"], arguments_of(call["arguments"], constants=False))


def no_answer(lm: LM, data: Mapping[str, Any]) -> LMError:
    """The error for a JSON object that is no answer: what it complains of, else that it is none."""
    if complaint := complaint_in(data):
        return complaint.error(lm)
    return LMProviderError("The reply is JSON, but not an answer.", model=lm.model, provider=lm.provider.id, status=200)


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
        LMProviderError: the body is not one (a gateway's HTML page behind a 200, say).
    """
    try:
        text = body.decode()
        data, end = _DECODE(text)  # json.loads would look for the encoding and for blanks first: 5 us
        if end != len(text) and not text[end:].isspace():
            data = None
    except ValueError:
        data = _loads(body)
    if not isinstance(data, dict):
        if fault := fault_in(data):
            raise fault.error(lm)
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
    except (ValueError, RecursionError):
        return None


def as_object(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one: providers send null where they mean nothing."""
    return value if isinstance(value, dict) else {}


def tool_call(id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A tool call in the shape that DSPy's adapters read."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def arguments_of(given: Any, *, constants: bool = True) -> dict[str, Any]:
    """The arguments of a tool call. What is no JSON object is kept, under a name that no tool takes.

    As DSPy keeps it: a text that is no JSON as `partial_json`, a JSON value of another kind as `value`. Never as {}:
    a tool would then run with its defaults, of which the model said nothing. `constants`: NaN and Infinity are JSON.
    """
    if given is None or given == "":
        return {}
    try:
        value = (
            json.loads(given, parse_constant=None if constants else _no_constant) if isinstance(given, str) else given
        )
    except (ValueError, RecursionError):
        return {PARTIAL: given}
    return value if isinstance(value, dict) else {"value": value}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def count(value: Any) -> int | float | None:
    """A token counter as a provider sends it; None for anything that is no count."""
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return value if is_count else None


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
