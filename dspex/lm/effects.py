"""What an exchange asks its driver to do, what it is about, and how it ended: plain data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import LMError
from ..events import Name
from .http.endpoint import Endpoint
from .http.http_message import Reply
from .single_flight import FlightSeat

if TYPE_CHECKING:
    from .dialects.dialect_base import Answer, Dialect
    from .record import LM
    from .redaction import Redactor
    from .response_check import Live


def _silent(*_: object, **__: object) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class Request:
    """One request to be made. `head` is everything of its HTTP head that does not depend on the body."""

    lm: LM
    dialect: Dialect
    target: Endpoint
    head: bytes = field(repr=False)  # holds the key
    redactor: Redactor = field(repr=False)
    body: bytes = field(repr=False)
    key: bytes | None  # None: not from the cache, not shared
    stream: bool
    timeout: float
    deadline: float | None
    emit: Callable[..., object] = field(default=_silent, repr=False)
    spend: Callable[[Mapping[str, Any]], object] = field(default=_silent, repr=False)  # told what failures have cost
    for_worker: bool = False
    resent: int = 0  # requests sent again because a kept connection was closed
    has_alternative: bool = False  # another LM can be asked instead of waiting for a circuit to close
    was_cut_short: bool = False  # given up before its retries were used, for a reason of its own

    @property
    def until(self) -> float:
        """The deadline as a number; infinite when there is none."""
        return math.inf if self.deadline is None else self.deadline

    def left(self) -> float:
        """Seconds that an attempt may take now."""
        if self.deadline is None:
            return self.timeout
        return min(self.timeout, self.deadline - time.monotonic())

    def resend(self) -> None:
        """Note that the request goes out a second time, which a provider may count and bill."""
        self.resent += 1
        self.emit(Name.LM_RESENT, model=self.lm.model, endpoint=self.target.host)


@dataclass(slots=True)
class SendRequest:
    """Make the request; the result is a `Reply`, or an open stream when the order streams and the status is 2xx.

    `again` is told when a kept connection was closed and the request is sent once more; None: that has happened.
    """

    order: Request
    timeout: float
    again: Callable[[], object] | None


@dataclass(slots=True)
class Take:
    """Wait for the next of a stream's parts; the result is None at its end."""

    parts: Any


@dataclass(slots=True)
class Sleep:
    """Let `seconds` pass."""

    seconds: float


@dataclass(slots=True)
class Wait:
    """Wait until the seat is settled, or `deadline`; the result is False when the wait would never end."""

    seat: FlightSeat[ExchangeOutcome]
    deadline: float | None


@dataclass(slots=True)
class StartStream:
    """Make sure that the LM's own server runs (the embedded model); the result is the order to send instead."""

    order: Request


@dataclass(slots=True)
class ExchangeOutcome:
    """How a request ended. `reply` with an `error` is the provider's final refusal, whatever its status."""

    reply: Reply | None = None
    answer: Answer | None = None  # of a whole reply
    live: Live | None = None  # a stream that has begun
    error: LMError | None = None
    cached: bool = False
    attempts: int = 0
    was_held_back: bool = False  # the circuit is open: nothing was sent
    seat: FlightSeat[ExchangeOutcome] | None = field(default=None, repr=False)  # of a live stream: still to land
    asked_by: str | None = None  # the ref of the LM that a shared error is the answer to


Effect = SendRequest | Take | Sleep | Wait | StartStream
Exchange = Generator[Effect, Any, ExchangeOutcome]
