"""Carrying an exchange out on the calling task's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .blocking_driver import Starter
from .effects import Effect, Exchange, ExchangeOutcome, Request, SendRequest, Sleep, StartStream, Take, Wait
from .http.async_client import AsyncHttp, AsyncHttpStream
from .http.http_message import Reply
from .single_flight import FlightSeat, SingleFlight


class AsyncDriver:
    """Carries exchanges out on the running event loop; cancelling the task closes its connection at once."""

    def __init__(
        self,
        http: AsyncHttp,
        flights: SingleFlight[ExchangeOutcome],
        ready: Callable[[Request], Request | None],
        start: Starter,
    ) -> None:
        self.http = http
        self._flights = flights
        self._ready = ready
        self._start = start

    async def run(self, exchange: Exchange) -> ExchangeOutcome:
        """The exchange's outcome."""
        try:
            effect = next(exchange)
            while True:
                try:
                    result = await self._perform(effect)
                except BaseException as error:  # the exchange cleans up after a cancel too
                    effect = exchange.throw(error)
                else:
                    effect = exchange.send(result)
        except StopIteration as stop:
            outcome: ExchangeOutcome = stop.value
            return outcome

    def _perform(self, effect: Effect) -> Awaitable[Any]:
        if type(effect) is SendRequest:
            order = effect.order
            if not order.stream:
                return self.http.send(order.target, order.head, order.body, effect.timeout, effect.again)
            return self._stream(order, effect)
        if type(effect) is Take:
            return anext(effect.parts, None)
        if type(effect) is Sleep:
            return asyncio.sleep(effect.seconds)
        if type(effect) is Wait:
            return self._wait(effect.seat, effect.deadline)
        assert type(effect) is StartStream
        return self._start_server(effect.order)

    async def _stream(self, order: Request, send: SendRequest) -> AsyncHttpStream | Reply:
        stream = await self.http.stream(order.target, order.head, order.body, send.timeout, order.until, send.again)
        return stream if stream.head.status < 300 else await stream.whole()

    async def _start_server(self, order: Request) -> Request:
        ready = self._ready(order)
        return await asyncio.to_thread(self._start, order) if ready is None else ready

    async def _wait(self, seat: FlightSeat[ExchangeOutcome], deadline: float | None) -> bool:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(finish)
            except RuntimeError:  # the loop has closed: its task is gone, and its seat with it
                self._flights.leave(seat)

        if not self._flights.watch(seat, notify):
            return True
        if deadline is None:
            await done
        else:
            await asyncio.wait((done,), timeout=max(0.0, deadline - time.monotonic()))
        return True
