"""Check what a client answers to a callback before its worker gets it. Pure.

A worker takes the words of its host as they are, so a client's are held to what a handler of the host may say. Their
size is bounded by the frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInput

STATUS = range(100, 600)
HEADERS_MOST = 200
TEXT_MOST = 16 * 1024  # characters of a header


def checked_reply(name: str, reply: Any) -> Any:
    """Return the reply to a "tool.call", a "metric.call" or a "call.seen".

    Raises:
        InvalidInput: it is no such reply.
    """
    if name == "tool.call":
        if not (isinstance(reply, dict) and reply.keys() == {"value"}):
            raise _odd(name, "plain data as 'value'")
        return reply
    if name == "metric.call":
        score = reply.get("score") if isinstance(reply, dict) else reply
        if not _is_number(score):
            raise _odd(name, "a finite number, or a mapping with one as 'score'")
        return reply
    return None


def checked_part(part: Any, *, is_first: bool) -> Any:
    """Return a part of the reply to an "lm.request": first its head, then bytes of its body.

    Raises:
        InvalidInput: it is neither.
    """
    if not is_first:
        if not isinstance(part, bytes):
            raise _odd("lm.request", "bytes after its head")
        return part
    if not (isinstance(part, Mapping) and part.get("status") in STATUS and _are_headers(part.get("headers"))):
        raise _odd("lm.request", "a head with a status and headers")
    return {"status": part["status"], "headers": part["headers"], "cached": part.get("cached") is True}


def _are_headers(headers: Any) -> bool:
    return (
        isinstance(headers, list)
        and len(headers) <= HEADERS_MOST
        and all(
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(text, str) and len(text) <= TEXT_MOST for text in pair)
            for pair in headers
        )
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))


def _odd(name: str, wanted: str) -> InvalidInput:
    return InvalidInput(f"The client answers {name!r} with {wanted}; it answered something else.", field=name)
