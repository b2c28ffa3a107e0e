"""Check a 2xx response before it is kept or shown: remove secrets, and tell an answer from an error.

Both routes pass through here, so the parent's own calls and the workers' fail alike, are retried alike and fall over
alike. Secrets are taken out first, so that whatever is made of a response (an answer, an error, a cache entry) holds
none. Pure: no I/O; the caller's thread or loop.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import LMError, LMProviderError
from .dialects.answer import Answer
from .dialects.error_classes import with_metadata
from .dialects.json_body import as_object, json_in
from .dialects.sound_usage import with_sound_usage
from .http.http_message import Head, Reply
from .quoted_prompts import without_quotes
from .reading_cost import LOOKED_AT_LEAST, is_costly, require_readable
from .worker_reading import require_read_by_dspy

if TYPE_CHECKING:
    from .http.async_client import AsyncHttpStream
    from .http.blocking_client import BlockingHttpStream
    from .record import LM
    from .request import Request

T = TypeVar("T")
# What reading JSON of another shape than the API's ends in.
MALFORMED = (TypeError, ValueError, LookupError, AttributeError, RecursionError, ArithmeticError)


def cleaned(request: Request, reply: Reply) -> Reply:
    """Return the reply without secrets; a body in which none could be found (compressed, or no text) is left out."""
    may_hold = request.redactor.may_be_in(reply.head.raw, reply.body)
    head = _clean_head(request, reply.head) if may_hold else reply.head
    if _coding(head) or (head.status >= 300 and not _is_text(reply.body)):
        return Reply(head, b"")
    return Reply(head, request.redactor.whole(reply.body)) if may_hold else reply


def settled(request: Request, error: LMError, head: Head) -> LMError:
    """Return the error with what only the headers hold, and with nothing of the request in its text."""
    return with_metadata(without_quotes(error, request.body), head, request.lm)


def answer_of(request: Request, reply: Reply) -> tuple[Reply, Answer]:
    """Return the answer in a whole 2xx reply, and the reply as its reader may see it.

    Raises:
        LMError: it is an error, or cannot be read.
    """
    lm, dialect = request.lm, request.dialect
    try:
        if not reply.body and (coding := _coding(reply.head)):  # `cleaned` left the body out
            raise _compressed(lm, coding)
        if request.stream:
            answer = _read(lm, _whole_stream, request, reply.body)
            if request.for_worker:
                require_read_by_dspy(request, reply.body)
            return reply, answer
        if len(reply.body) >= LOOKED_AT_LEAST:
            require_readable(request, reply.body)
        answer = _read(lm, dialect.answer, lm, reply.body)
        if request.for_worker:
            reply = Reply(reply.head, with_sound_usage(lm, _read(lm, dialect.repaired, lm, reply.body)))
            require_read_by_dspy(request, reply.body)
        return reply, answer
    except LMError as error:
        settled(request, error, reply.head)
        raise


def usage_reported(request: Request, body: bytes) -> Mapping[str, Any]:
    """Return the usage in a response that is no answer, whether it came as JSON or as a stream."""
    if b"sage" not in body or is_costly(request, body):
        return {}
    reader = request.dialect.reader(request.lm)
    with contextlib.suppress(LMError, *MALFORMED):
        reader.feed(body + b"\n\n")
    if reader.usage:
        return reader.usage
    reported: Mapping[str, Any] = {}
    for text in (body, *(line[5:] for line in body.split(b"\n") if line.startswith(b"data:"))):
        with contextlib.suppress(*MALFORMED):
            reported = request.dialect.usage_in(as_object(json_in(text))) or reported
    return reported


class LiveStream:
    """A stream that is still coming: its bytes without secrets, read for errors and usage as they pass.

    `opening` is what was read before anything of the answer came; until then an error is a refusal like any other.
    """

    __slots__ = ("_opened", "_redaction", "_request", "head", "parts", "reader", "stream")

    def __init__(self, request: Request, stream: BlockingHttpStream | AsyncHttpStream) -> None:
        self.stream = stream
        self.parts: Any = stream.parts()
        self.head = _clean_head(request, stream.head)
        self.reader = request.dialect.reader(request.lm)
        self._request = request
        self._redaction = request.redactor.stream()
        self._opened: list[bytes] = []

    @property
    def opening(self) -> bytes:
        """The bytes that were read to find out whether an answer comes at all."""
        return b"".join(self._opened)

    def open(self, part: bytes | None) -> bool:
        """Take a part of the beginning, None for the end; return whether an answer has begun.

        Raises:
            LMError: it is none.
        """
        if coding := _coding(self.head):
            raise _compressed(self._request.lm, coding)
        shown = self._redaction.end() if part is None else self._redaction.feed(part)
        self._opened.append(shown)  # first: what it says was used counts, whatever else it says
        self._checked(self.reader.feed, shown)
        if part is None:
            self._checked(self.reader.finish)
        return self.reader.has_begun

    def take(self, part: bytes) -> bytes:
        """Take the next part; return what of it may be shown now.

        Raises:
            LMError: the stream reports an error, or is none.
        """
        shown = self._redaction.feed(part)
        self._checked(self.reader.feed, shown)
        return shown

    def end(self) -> bytes:
        """End the stream; return what was held back.

        Raises:
            LMError: it was not whole.
        """
        rest = self._redaction.end()
        self._checked(self.reader.feed, rest)
        self._checked(self.reader.finish)
        return rest

    def usage(self) -> Mapping[str, Any]:
        """Return what the stream has reported as used so far."""
        return self.reader.usage or usage_reported(self._request, self.opening)

    def _checked(self, reading: Callable[..., object], *given: object) -> None:
        try:
            _read(self._request.lm, reading, *given)
        except LMError as error:
            settled(self._request, error, self.head)
            raise


def _whole_stream(request: Request, body: bytes) -> Answer:
    reader = request.dialect.reader(request.lm)
    reader.feed(body)
    return reader.finish()


def _read(lm: LM, reading: Callable[..., T], *given: object) -> T:
    try:
        return reading(*given)
    except MALFORMED as error:
        message = f"The reply is not of the API's shape ({type(error).__name__} while reading it)."
        raise LMProviderError(message, model=lm.model, provider=lm.provider.id, status=200) from error


def _clean_head(request: Request, head: Head) -> Head:
    text = request.redactor.text(head.raw)
    return head if text is head.raw or text == head.raw else Head(text, head.status)


def _coding(head: Head) -> str:
    """Return what the body is encoded in, though it was asked for as it is; "" for nothing."""
    coding = head.get("content-encoding").lower()
    return "" if coding == "identity" else coding


def _is_text(body: bytes) -> bool:
    """Whether it is JSON or a page; some gateways compress without saying so."""
    try:
        body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        return False
    return True


def _compressed(lm: LM, coding: str) -> LMError:
    return LMProviderError(
        f"The reply is compressed ({coding[:20]}), though it was asked for as it is; switch that off in the gateway or "
        f"proxy in front of the provider.",
        model=lm.model,
        provider=lm.provider.id,
        status=200,
    )
