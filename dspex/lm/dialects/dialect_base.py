"""What a dialect makes of a response: `Answer`, the base of stream readers, and JSON as the wire wants it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import (
    InvalidInput,
    LMError,
    LMProviderError,
)
from .error_envelopes import complaint_in, fault_in

if TYPE_CHECKING:
    from ..record import LM
    from .stream_reader import StreamReader

Message = Mapping[str, Any]
Details = Sequence[tuple[str, Any]]
PARTIAL = "partial_json"  # where arguments that are no JSON are kept, as in DSPy

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
        data = json_in(body)
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


def json_in(body: bytes) -> Any:
    """The JSON value that the body is, None when it is none."""
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
