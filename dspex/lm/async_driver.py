"""`AsyncDriver`: perform effects on the calling task's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from .blocking_driver import Starter
from .effects import (
    Authorize,
    Effect,
    Effects,
    ExchangeOutcome,
    Give,
    Read,
    ReceivePart,
    SendRequest,
    Sleep,
    StartServer,
    T,
    Wait,
)
from .http.async_client import AsyncHttp, AsyncHttpStream
from .http.http_message import Reply
from .request import Request
from .single_flight import FlightMember, SingleFlight


class AsyncDriver:
    """Performs effects on the running event loop; cancelling the task closes its connection at once."""

    def __init__(
        self,
        http: AsyncHttp,
        single_flight: SingleFlight[ExchangeOutcome],
        ready: Callable[[Request], Request | None],
        start: Starter,
    ) -> None:
        self.http = http
        self._single_flight = single_flight
        self._ready = ready
        self._start = start

    async def run(self, effects: Effects[T]) -> T:
        """Perform all effects, and return what the generator returns."""
        try:
            effect = next(effects)
            while True:
                try:
                    result = await self._perform(effect)
                except BaseException as error:  # the generator cleans up after a cancel too
                    effect = effects.throw(error)
                else:
                    effect = effects.send(result)
        except StopIteration as stop:
            returned: T = stop.value
            return returned

    async def iterate(self, effects: Effects[None]) -> AsyncGenerator[Any, None]:
        """Perform all effects, and yield the item of each `Give`; closing it closes the generator."""
        try:
            effect = next(effects)
            while True:
                try:
                    if type(effect) is Give:
                        yield effect.item
                        result = None
                    else:
                        result = await self._perform(effect)
                except BaseException as error:  # as in `run`
                    effect = effects.throw(error)
                else:
                    effect = effects.send(result)
        except StopIteration:
            return

    def _perform(self, effect: Effect) -> Awaitable[Any]:
        if type(effect) is SendRequest:
            request = effect.request
            if request.stream:
                return self._stream(effect)
            target, head, body = request.target, request.head, request.body
            return self.http.send(target, head, body, effect.timeout, effect.on_resend, request.until)
        if type(effect) is ReceivePart:
            return anext(effect.parts, None)
        if type(effect) is Sleep:
            return asyncio.sleep(effect.seconds)
        if type(effect) is Wait:
            return self._wait(effect.member, effect.deadline)
        if type(effect) is Authorize:
            return self._authorized(effect.request)
        if type(effect) is Read:
            return asyncio.to_thread(effect.reading)
        assert type(effect) is StartServer
        return self._start_server(effect.request)

    async def _stream(self, send: SendRequest) -> AsyncHttpStream | Reply:
        request = send.request
        target, head, body = request.target, request.head, request.body
        stream = await self.http.stream(target, head, body, send.timeout, request.until, send.on_resend)
        return stream if stream.head.status < 300 else await stream.whole()

    async def _start_server(self, request: Request) -> Request:
        ready = self._ready(request)
        return await asyncio.to_thread(self._start, request) if ready is None else ready

    @staticmethod
    async def _authorized(request: Request) -> Request:
        from .authorization import authorized  # for clouds only

        signer = request.lm.signer
        is_ready = signer is not None and signer.is_ready
        return authorized(request) if is_ready else await asyncio.to_thread(authorized, request)

    async def _wait(self, member: FlightMember[ExchangeOutcome], deadline: float | None) -> bool:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(finish)
            except RuntimeError:  # the loop has closed: its task is gone, and its member with it
                self._single_flight.leave(member)

        if not self._single_flight.watch(member, notify):
            return True
        if deadline is None:
            await done
        else:
            await asyncio.wait((done,), timeout=max(0.0, deadline - time.monotonic()))
        return True
