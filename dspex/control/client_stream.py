"""A client's stream: a request whose chunks are read as those of a Supervisor's stream."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ..errors import CallTimeout
from ..pools.streams import StreamBuffer
from . import protocol
from .client_connection import ClientConnection, ClientRequest
from .command_client import MARGIN

Arguments = dict[str, Any]


class RemoteStream:
    """A stream's call, as `pools.streams` wants one: here it is a request of the link, and its own pool."""

    worker_name = ""  # the service does not say where it runs

    def __init__(
        self, link: ClientConnection, pool: str, command: str, wait: float, *, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.buffer = StreamBuffer(loop)
        self._link = link
        self._names = (pool, command)
        self._wait = wait
        self._deadline = time.monotonic() + wait
        self._request: ClientRequest
        self._error: BaseException | None = None

    def begin(self, verb: str, arguments: Arguments) -> None:
        """Send the request.

        Raises:
            EncodeError, FrameTooLarge, NotRunning: as `ClientConnection.request`.
        """
        self._request = self._link.request(
            verb,
            arguments,
            what=f"the stream {self._names[1]!r}",
            credit=protocol.CREDIT,
            on_chunk=self.buffer.put,
            on_end=self.buffer.finish,
        )

    @property
    def value(self) -> Any:
        future = self._request.future
        return future.result() if future.done() and not future.cancelled() and not future.exception() else None

    def result(self) -> Any:
        """Give the stream's value, or raise what ended it."""
        if self._error is not None:
            raise self._error
        return self._request.future.result(0)

    def remaining(self) -> float:
        return self._deadline - time.monotonic()

    def grant(self, call: object, count: int) -> None:
        self._link.grant(self._request, count)

    def check_own_process(self) -> None:
        self._link.check_own_process()

    def abandon(self, call: object) -> None:
        self._link.cancel(self._request)
        self.buffer.finish()  # also for another thread that reads it

    def abandon_later(self, call: object) -> None:
        self._link.cancel_later(self._request)

    def expire(self, call: object) -> None:
        pool, command = self._names
        self._error = CallTimeout(pool, command, timeout=self._wait - MARGIN, phase="running")
        self._link.cancel(self._request)
