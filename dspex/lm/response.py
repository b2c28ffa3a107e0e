"""Read a response as it arrives: its outcome, the parts of its body, and its texts, choice and cost.

Generators of effects (see `effects`), which the drivers run on a thread or on an event loop.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from ..events import Name
from .completion import Choice, completion_of
from .dialects.answer import Answer
from .dialects.stream_reader import StreamReader
from .effects import Effects, ExchangeOutcome, Give, Read, ReceivePart
from .exchange import exchange
from .exchange_services import ExchangeServices
from .http.http_message import Reply
from .request import Request
from .response_check import LiveStream
from .unfinished_usage import unfinished_usage
from .usage import UsageMeter
from .worker_reading import is_read_by_dspy

PIECE_BYTES = 1024 * 1024


def choice(services: ExchangeServices, request: Request, usage: UsageMeter) -> Effects[Choice]:
    """Return the choice in a whole response.

    Raises:
        LMError: it is a refusal, or no answer came.
    """
    outcome = _accepted((yield from exchange(services, request)))
    assert outcome.answer is not None
    return _counted(outcome.answer, request, outcome, usage)


def texts(services: ExchangeServices, request: Request, usage: UsageMeter) -> Effects[None]:
    """Yield the texts as they come, then the completion; a stream that ends early is counted too.

    Raises:
        LMError: the response is a refusal, or breaks off.
    """
    response = yield from opened(services, request)
    with contextlib.closing(response):
        outcome = _accepted(response.outcome)
        streamed = _StreamedText(request, outcome)
        made: Choice | None = None
        try:
            while (part := (yield from response.part())) is not None:
                for text in streamed.after(part):
                    request.was_shown = True
                    yield Give(text)
            for text in streamed.rest():
                request.was_shown = True
                yield Give(text)
            made = _counted(streamed.reader.finish(), request, outcome, usage)
        finally:
            if made is None and not outcome.cached:
                used = unfinished_usage(request.body, streamed.reader, streamed.reader.usage)
                usage.add(request.lm, used)  # it was asked for, and came to this much
    assert made is not None
    yield Give(completion_of(made))


def opened(services: ExchangeServices, request: Request) -> Effects[Response]:
    """Return the response as soon as its outcome is known. Close it."""
    return Response(services, request, (yield from exchange(services, request)))


class Response:
    """One response's outcome and body; when the body is whole it goes to the cache and to the flight's followers.

    Closing it early closes the connection and hands a shared flight to a follower. A stream that turns out to be no
    answer raises its error, and is kept by nobody.
    """

    __slots__ = ("_has_begun", "_kept", "_pieces", "_request", "_services", "has_ended", "outcome")

    def __init__(self, services: ExchangeServices, request: Request, outcome: ExchangeOutcome) -> None:
        self.outcome = outcome
        self._services = services
        self._request = request
        self._kept: list[bytes] = []
        self._pieces = _pieces(outcome.reply)
        self._has_begun = False
        self.has_ended = False

    def part(self) -> Effects[bytes | None]:
        """Return the body's next part, None at its end.

        Raises:
            LMError: the stream reports an error, is none, or was not whole.
        """
        live, member = self.outcome.live, self.outcome.member
        if live is None:
            return next(self._pieces, None)
        if member is not None:
            member.resume()
        while not self.has_ended:
            shown = yield from self._shown(live)
            if member is not None:
                self._kept.append(shown)
                member.pause()
            if shown:
                return shown
        if member is not None:
            is_certain = live.reader.finish_reason is not None  # gateways end a stream that broke off with [DONE] too
            reply = Reply(live.head, b"".join(self._kept))
            if is_certain and self._request.for_worker:
                is_certain = yield Read(functools.partial(is_read_by_dspy, self._request, reply.body))
            self._services.settle(self._request, member, reply, is_certain=is_certain)
        return None

    def _shown(self, live: LiveStream) -> Effects[bytes]:
        """Return what may be shown of the next part that arrives."""
        if not self._has_begun:
            self._has_begun = True
            return live.opening
        part = yield ReceivePart(live.parts)
        if part is not None:
            return live.take(part)
        rest = live.end()
        self.has_ended = True
        return rest

    def close(self) -> None:
        """Close the connection and leave the flight, unless the body was read to its end."""
        outcome = self.outcome
        if outcome.live is not None:
            outcome.live.stream.close()
        if outcome.member is not None:
            self._services.single_flight.leave(outcome.member)


class _StreamedText:
    """How much of a stream's text was given to its reader."""

    __slots__ = ("_feeds", "_given", "reader")

    def __init__(self, request: Request, outcome: ExchangeOutcome) -> None:
        live: LiveStream | None = outcome.live
        self._feeds = live is None  # from the cache: nobody has read it yet
        self._given = 0
        self.reader: StreamReader = request.dialect.reader(request.lm) if live is None else live.reader

    def after(self, part: bytes) -> list[str]:
        """Return the texts that a part has brought."""
        if self._feeds:
            self.reader.feed(part)
        return self.rest()

    def rest(self) -> list[str]:
        """Return the texts that were not given yet."""
        texts = self.reader.text[self._given :]
        self._given += len(texts)
        return texts


def _pieces(reply: Reply | None) -> Iterator[bytes]:
    """Return a whole body in pieces that fit into a frame to a worker."""
    body = reply.body if reply is not None else b""
    if len(body) <= PIECE_BYTES:
        return iter((body,))
    return (body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES))


def _counted(answer: Answer, request: Request, outcome: ExchangeOutcome, usage: UsageMeter) -> Choice:
    note_truncation(answer.finish_reason, request, outcome)
    cost = usage.add_cached() if outcome.cached else usage.add(request.lm, answer.usage)
    return Choice(answer, cost, outcome.cached, outcome.attempts)


def note_truncation(finish_reason: str | None, request: Request, outcome: ExchangeOutcome) -> None:
    """Emit an event if an answer was cut at its length; one from the cache is no more whole than it was."""
    if finish_reason == "length":
        request.emit(Name.LM_TRUNCATED, model=request.lm.model, endpoint=request.target.name, cached=outcome.cached)


def _accepted(outcome: ExchangeOutcome) -> ExchangeOutcome:
    if outcome.error is not None:
        raise outcome.error
    return outcome
