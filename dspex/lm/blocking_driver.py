"""Carrying an exchange out on the calling thread. For event loops: `loop_driver`, as asyncio is slow to import."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .effects import Effect, Exchange, ExchangeOutcome, Request, SendRequest, Sleep, StartStream, Take, Wait
from .http.blocking_client import BlockingHttp
from .single_flight import FlightSeat, SingleFlight

Starter = Callable[[Request], Request]


class BlockingDriver:
    """Carries exchanges out on the calling thread; every wait can be interrupted by a signal's handler."""

    def __init__(self, http: BlockingHttp, flights: SingleFlight[ExchangeOutcome], start: Starter) -> None:
        self.http = http
        self._flights = flights
        self._start = start

    def run(self, exchange: Exchange) -> ExchangeOutcome:
        """The exchange's outcome."""
        try:
            effect = next(exchange)
            while True:
                try:
                    result = self._perform(effect)
                except BaseException as error:  # the exchange cleans up after Ctrl-C too
                    effect = exchange.throw(error)
                else:
                    effect = exchange.send(result)
        except StopIteration as stop:
            outcome: ExchangeOutcome = stop.value
            return outcome

    def _perform(self, effect: Effect) -> Any:
        if type(effect) is SendRequest:
            order = effect.order
            if not order.stream:
                return self.http.send(order.target, order.head, order.body, effect.timeout, effect.again)
            stream = self.http.stream(order.target, order.head, order.body, effect.timeout, order.until, effect.again)
            return stream if stream.head.status < 300 else stream.whole()
        if type(effect) is Take:
            return next(effect.parts, None)
        if type(effect) is Sleep:
            self.http.is_over.wait(min(effect.seconds, threading.TIMEOUT_MAX))
            return None
        if type(effect) is Wait:
            return self._wait(effect.seat, effect.deadline)
        assert type(effect) is StartStream
        return self._start(effect.order)

    def _wait(self, seat: FlightSeat[ExchangeOutcome], deadline: float | None) -> bool:
        """False when it would be for ever: a task or a stream of this very thread leads."""
        if not seat.settled and self._flights.leads_here(seat):
            return False
        done = threading.Lock()
        done.acquire()
        if self._flights.watch(seat, done.release):
            left = threading.TIMEOUT_MAX if deadline is None else deadline - time.monotonic()
            done.acquire(timeout=min(max(0.0, left), threading.TIMEOUT_MAX))
        return True
