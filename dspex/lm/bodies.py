"""A response's body as it comes, on a thread or on a loop; once it is whole it goes to the cache and the followers.

Both functions give the outcome first, then the body's parts as they arrive, each at once. Closing them early closes the
connection, and hands a shared flight to a follower. A stream that turns out to be no answer raises its error and is
kept by nobody. Written twice, since a generator cannot await.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import TYPE_CHECKING

from .blocking_driver import BlockingDriver
from .effects import ExchangeOutcome, Request
from .exchange import ExchangeServices, exchange
from .http.http_message import Reply
from .response_check import Live

PIECE_BYTES = 1024 * 1024
if TYPE_CHECKING:
    from .async_driver import AsyncDriver


def parts(
    services: ExchangeServices, driver: BlockingDriver, order: Request
) -> Generator[ExchangeOutcome | bytes, None, None]:
    """The outcome, then the parts."""
    outcome = driver.run(exchange(services, order))
    live = outcome.live
    if live is None:
        yield outcome
        yield from _pieces(outcome.reply)
        return
    seat, kept = outcome.seat, list[bytes]()
    try:
        yield outcome
        for part in itertools.chain((live.opening,), map(live.take, live.parts)):
            if seat is not None:
                kept.append(part)
                seat.hold()
            if part:
                yield part
            if seat is not None:
                seat.resume()
        kept.append(rest := live.end())
        if rest:
            yield rest
    except BaseException:
        _give_up(services, outcome, live)
        raise
    _keep(services, order, outcome, live, kept)


async def aparts(
    services: ExchangeServices, driver: AsyncDriver, order: Request
) -> AsyncGenerator[ExchangeOutcome | bytes, None]:
    """`parts`, asynchronously."""
    outcome = await driver.run(exchange(services, order))
    live = outcome.live
    if live is None:
        yield outcome
        for piece in _pieces(outcome.reply):
            yield piece
        return
    seat, kept = outcome.seat, list[bytes]()
    try:
        yield outcome
        async for part in _aseen(live):
            if seat is not None:
                kept.append(part)
                seat.hold()
            if part:
                yield part
            if seat is not None:
                seat.resume()
        kept.append(rest := live.end())
        if rest:
            yield rest
    except BaseException:
        _give_up(services, outcome, live)
        raise
    _keep(services, order, outcome, live, kept)


async def _aseen(live: Live) -> AsyncGenerator[bytes, None]:
    yield live.opening
    async for part in live.parts:
        yield live.take(part)


def _pieces(reply: Reply | None) -> Iterator[bytes]:
    """A whole body in pieces that fit into a frame to a worker; a refusal in one: no key in it may be cut in two."""
    body = reply.body if reply is not None else b""
    if reply is None or len(body) <= PIECE_BYTES or reply.status >= 400:
        yield body
        return
    for at in range(0, len(body), PIECE_BYTES):
        yield body[at : at + PIECE_BYTES]


def _keep(services: ExchangeServices, order: Request, outcome: ExchangeOutcome, live: Live, kept: list[bytes]) -> None:
    if outcome.seat is not None:
        services.settle(order, outcome.seat, Reply(live.head, b"".join(kept)))


def _give_up(services: ExchangeServices, outcome: ExchangeOutcome, live: Live) -> None:
    live.stream.close()
    if outcome.seat is not None:
        services.flights.leave(outcome.seat)
