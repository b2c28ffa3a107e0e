"""What a 2xx response really is, found before anything of it is kept or shown: an answer, or an error in its clothes.

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
from .dialects.dialect_base import Answer, as_object
from .dialects.error_classes import with_metadata
from .http.http_message import Head, Reply

if TYPE_CHECKING:
    from .effects import Request
    from .http.async_client import AsyncHttpStream
    from .http.blocking_client import BlockingHttpStream
    from .record import LM

T = TypeVar("T")
# What reading JSON of another shape than the API's ends in.
MALFORMED = (TypeError, ValueError, LookupError, AttributeError, RecursionError, ArithmeticError)


def cleaned(order: Request, reply: Reply) -> Reply:
    """The reply without secrets; a body in which none could be found (compressed, or no text) is left out."""
    head = _clean_head(order, reply.head)
    is_hidden = _coding(head) or (reply.status >= 300 and not _is_text(reply.body))
    return Reply(head, b"" if is_hidden else order.redactor.whole(reply.body))


def answer_of(order: Request, reply: Reply) -> tuple[Reply, Answer]:
    """The answer that a whole 2xx reply is, and the reply as the reader of it may have it.

    Raises:
        LMError: it is an error, or cannot be read.
    """
    lm, dialect = order.lm, order.dialect
    try:
        if coding := _coding(reply.head):
            raise _compressed(lm, coding)
        if order.stream:
            return reply, _read(lm, _whole_stream, order, reply.body)
        answer = _read(lm, dialect.answer, lm, reply.body)
        if order.for_worker:
            reply = Reply(reply.head, _read(lm, dialect.mended, lm, reply.body))
        return reply, answer
    except LMError as error:
        with_metadata(error, reply.head, lm)
        raise


def usage_said(order: Request, body: bytes) -> Mapping[str, Any]:
    """What a response that is no answer says was used, whether it came as JSON or as a stream."""
    if b"sage" not in body:
        return {}
    reader = order.dialect.reader(order.lm)
    with contextlib.suppress(LMError, *MALFORMED):
        reader.feed(body + b"\n\n")
    if reader.usage:
        return reader.usage
    said: Mapping[str, Any] = {}
    for text in (body, *(line[5:] for line in body.split(b"\n") if line.startswith(b"data:"))):
        with contextlib.suppress(*MALFORMED):
            said = order.dialect.usage_in(as_object(json.loads(text))) or said
    return said


class Live:
    """A stream that is still coming: its bytes without secrets, read for errors and usage as they pass.

    `opening` is what was read before anything of the answer came; until then an error is a refusal like any other.
    """

    __slots__ = ("_opened", "_order", "_redaction", "head", "parts", "reader", "stream")

    def __init__(self, order: Request, stream: BlockingHttpStream | AsyncHttpStream) -> None:
        self.stream = stream
        self.parts: Any = stream.parts()
        self.head = _clean_head(order, stream.head)
        self.reader = order.dialect.reader(order.lm)
        self._order = order
        self._redaction = order.redactor.stream()
        self._opened: list[bytes] = []

    @property
    def opening(self) -> bytes:
        """The bytes that were read to see whether an answer comes at all."""
        return b"".join(self._opened)

    def open(self, part: bytes | None) -> bool:
        """Take a part of the beginning, None for the end; whether an answer has begun.

        Raises:
            LMError: it is none.
        """
        if coding := _coding(self.head):
            raise _compressed(self._order.lm, coding)
        shown = self._redaction.end() if part is None else self._redaction.feed(part)
        self._opened.append(shown)  # first: what it says was used counts, whatever else it says
        self._checked(self.reader.feed, shown)
        if part is None:
            self._checked(self.reader.finish)
        return self.reader.has_begun

    def take(self, part: bytes) -> bytes:
        """Take the next part; gives what of it may be shown now.

        Raises:
            LMError: the stream reports an error, or is none.
        """
        shown = self._redaction.feed(part)
        self._checked(self.reader.feed, shown)
        return shown

    def end(self) -> bytes:
        """The stream has ended; gives what was held back.

        Raises:
            LMError: it was not whole.
        """
        rest = self._redaction.end()
        self._checked(self.reader.feed, rest)
        self._checked(self.reader.finish)
        return rest

    def usage(self) -> Mapping[str, Any]:
        """What the stream said was used so far."""
        return self.reader.usage or usage_said(self._order, self.opening)

    def _checked(self, reading: Callable[..., object], *given: object) -> None:
        try:
            _read(self._order.lm, reading, *given)
        except LMError as error:
            with_metadata(error, self.head, self._order.lm)
            raise


def _whole_stream(order: Request, body: bytes) -> Answer:
    reader = order.dialect.reader(order.lm)
    reader.feed(body)
    return reader.finish()


def _read(lm: LM, reading: Callable[..., T], *given: object) -> T:
    try:
        return reading(*given)
    except MALFORMED as error:
        message = f"The reply is not of the API's shape ({type(error).__name__} while reading it)."
        raise LMProviderError(message, model=lm.model, provider=lm.provider.id, status=200) from error


def _clean_head(order: Request, head: Head) -> Head:
    return Head(order.redactor.text(head.raw), head.status)


def _coding(head: Head) -> str:
    """What the body is encoded in, though it was asked for as it is; "" for nothing."""
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
