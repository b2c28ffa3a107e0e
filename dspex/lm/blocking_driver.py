"""`BlockingDriver`: perform effects on the calling thread (`async_driver` is its twin for event loops)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any

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
from .http.blocking_client import BlockingHttp
from .request import Request
from .single_flight import FlightMember, SingleFlight

Starter = Callable[[Request], Request]


class BlockingDriver:
    """Performs effects on the calling thread; every wait can be interrupted by a signal's handler."""

    def __init__(self, http: BlockingHttp, single_flight: SingleFlight[ExchangeOutcome], start: Starter) -> None:
        self.http = http
        self._single_flight = single_flight
        self._start = start

    def run(self, effects: Effects[T]) -> T:
        """Perform all effects, and return what the generator returns."""
        try:
            effect = next(effects)
            while True:
                try:
                    result = self._perform(effect)
                except BaseException as error:  # the generator cleans up after Ctrl-C too
                    effect = effects.throw(error)
                else:
                    effect = effects.send(result)
        except StopIteration as stop:
            returned: T = stop.value
            return returned

    def iterate(self, effects: Effects[None]) -> Generator[Any, None, None]:
        """Perform all effects, and yield the item of each `Give`; closing it closes the generator."""
        try:
            effect = next(effects)
            while True:
                try:
                    if type(effect) is Give:
                        yield effect.item
                        result = None
                    else:
                        result = self._perform(effect)
                except BaseException as error:  # as in `run`
                    effect = effects.throw(error)
                else:
                    effect = effects.send(result)
        except StopIteration:
            return

    def _perform(self, effect: Effect) -> Any:
        if type(effect) is SendRequest:
            return self._send(effect)
        if type(effect) is ReceivePart:
            return next(effect.parts, None)
        if type(effect) is Sleep:
            self.http.is_over.wait(min(effect.seconds, threading.TIMEOUT_MAX))
            return None
        if type(effect) is Wait:
            return self._wait(effect.member, effect.deadline)
        if type(effect) is Authorize:
            from .authorization import authorized  # for clouds only

            return authorized(effect.request)
        if type(effect) is Read:
            return effect.reading()
        assert type(effect) is StartServer
        return self._start(effect.request)

    def _send(self, send: SendRequest) -> Any:
        request, http, timeout = send.request, self.http, send.timeout
        target, head, body = request.target, request.head, request.body
        if not request.stream:
            return http.send(target, head, body, timeout, send.on_resend, request.until)
        stream = http.stream(target, head, body, timeout, request.until, send.on_resend)
        return stream if stream.head.status < 300 else stream.whole()

    def _wait(self, member: FlightMember[ExchangeOutcome], deadline: float | None) -> bool:
        """Wait until the member's wait is over; False when it would be for ever: this very thread leads."""
        if not member.settled and self._single_flight.leads_here(member):
            return False
        done = threading.Lock()
        done.acquire()
        if self._single_flight.watch(member, done.release):
            left = threading.TIMEOUT_MAX if deadline is None else deadline - time.monotonic()
            done.acquire(timeout=min(max(0.0, left), threading.TIMEOUT_MAX))
        return True
