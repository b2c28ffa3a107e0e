"""Encode a request's JSON body byte for byte as DSPy does, and decode a response's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, LMProviderError
from .error_envelopes import fault_in

if TYPE_CHECKING:
    from ..record import LM

BODY_CHECKED = 1024 * 1024  # bytes; a longer body is looked at before it is read
ODD_MOST = 64 * 1024  # bytes of a body in another encoding than UTF-8
BODY_VALUES = 1_000_000  # objects, lists and items in it: 0.2 s and 250 MB, during which no other thread runs
quoted = encode_basestring  # a text as JSON
quoted_once = lru_cache(maxsize=256)(quoted)  # for system messages: long, and the same for every call of a program

_DECODE = json.JSONDecoder().raw_decode
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(payload: Mapping[str, Any]) -> bytes:
    """Return the payload as JSON bytes, as DSPy sends them.

    Raises:
        InvalidInput: text that has no UTF-8 form (a lone surrogate), or a value that is not JSON.
    """
    return _utf8(json_text(payload))


def encode_chat(model: str, messages: Sequence[str], rest: Mapping[str, Any]) -> bytes:
    """Return `{"model": ..., "messages": [...], **rest}` as bytes, from messages that are JSON already.

    Raises:
        InvalidInput: as `encode`.
    """
    last = f",{json_text(rest)[1:]}" if rest else "}"
    return _utf8(f'{{"model":{quoted(model)},"messages":[{",".join(messages)}]{last}')


def json_text(value: Mapping[str, Any]) -> str:
    """Return the value as compact JSON.

    Raises:
        InvalidInput: it is none.
    """
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
    """Return a response's JSON object.

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
    """Return the JSON value that the body is, None when it is none."""
    if len(body) > ODD_MOST and not body.isascii():
        with contextlib.suppress(UnicodeDecodeError):
            body.decode()
            return _value_of(body)
        return None  # Python's reader takes half of a second for a megabyte of what is nearly UTF-8
    return _value_of(body)


def _value_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def as_object(value: Any) -> dict[str, Any]:
    """Return the value if it is a JSON object, else an empty one: providers send null where they mean nothing."""
    return value if isinstance(value, dict) else {}


def arguments_in(function: Mapping[str, Any]) -> Any:
    """Return the arguments of a tool call that a message quotes.

    Raises:
        InvalidInput: they are not JSON.
    """
    given = function.get("arguments", "{}")
    try:
        return json.loads(given or "{}") if isinstance(given, str) else given
    except (ValueError, RecursionError):
        raise InvalidInput("A tool call's arguments are not JSON.") from None
