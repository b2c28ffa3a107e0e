"""Effects that an exchange asks its driver to perform, and the outcome of an exchange: plain data.

A generator of effects blocks nowhere: a driver performs what it yields, on a thread or on an event loop, and sends the
result back. So everything about a request is written once, for both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import LMError
from .dialects.answer import Answer
from .http.http_message import Reply
from .request import Request
from .response_check import LiveStream
from .single_flight import FlightMember

T = TypeVar("T")


@dataclass(slots=True)
class SendRequest:
    """Send the request; the result is a `Reply`, or an open stream when the request streams and the status is 2xx.

    `on_resend` is called when a kept connection was closed and the request is sent once more; None: that has happened.
    """

    request: Request
    timeout: float
    on_resend: Callable[[], object] | None


@dataclass(slots=True)
class ReceivePart:
    """Wait for the next of a stream's parts; the result is None at its end."""

    parts: Any


@dataclass(slots=True)
class Sleep:
    """Let `seconds` pass."""

    seconds: float


@dataclass(slots=True)
class Wait:
    """Wait for the flight's leader, or until `deadline`; the result is False when the wait would never end."""

    member: FlightMember[ExchangeOutcome]
    deadline: float | None


@dataclass(slots=True)
class StartServer:
    """Make sure that the LM's own server runs (the embedded model); the result is the request to send instead."""

    request: Request


@dataclass(slots=True)
class Authorize:
    """Sign the request, or get a token for it; the result is the request to send instead."""

    request: Request


@dataclass(slots=True)
class Read:
    """Read something long, beside an event loop; the result is what `reading` returns."""

    reading: Callable[[], Any]


@dataclass(slots=True)
class Give:
    """Give the item to whoever iterates; only `iterate` of a driver performs it."""

    item: Any


@dataclass(slots=True)
class ExchangeOutcome:
    """How a request ended. `reply` with an `error` is the provider's final refusal, whatever its status."""

    reply: Reply | None = None
    answer: Answer | None = None  # of a whole reply
    live: LiveStream | None = None  # a stream that has begun
    error: LMError | None = None
    cached: bool = False
    attempts: int = 0
    was_held_back: bool = False  # the circuit is open: nothing was sent
    member: FlightMember[ExchangeOutcome] | None = field(default=None, repr=False)  # of a live stream: still to land
    asked_by: str | None = None  # the ref of the LM that a shared error is the answer to


Effect = SendRequest | ReceivePart | Sleep | Wait | StartServer | Authorize | Read | Give
Effects = Generator[Effect, Any, T]  # performs effects, and returns a T
Exchange = Effects[ExchangeOutcome]
