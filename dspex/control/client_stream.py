"""A client's stream: one request, its chunks read like those of a Supervisor's stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ..errors import CallTimeout
from ..pools.streams import StreamBuffer
from . import protocol
from .client_connection import ClientConnection
from .client_request import ClientRequest
from .operator_client import MARGIN
from .remote_call import RemoteCall
from .request_fields import Fields


class RemoteStream:
    """A stream's call and its pool, as `pools.streams` expects them: here both are one request of the connection."""

    def __init__(
        self,
        connection: ClientConnection,
        call: RemoteCall,
        pool: str,
        wait: float,
        *,
        loop: asyncio.AbstractEventLoop | None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.buffer = StreamBuffer(loop)
        self._connection = connection
        self._call = call
        self._names = (pool, call.command)
        self._ended = on_end
        self._wait = wait
        self._deadline = time.monotonic() + wait
        self._request: ClientRequest
        self._error: BaseException | None = None

    def begin(self, verb: str, fields: Fields) -> None:
        """Send the request.

        Raises:
            EncodeError, FrameTooLarge, NotRunning: as `ClientConnection.request`.
        """
        self._request = self._connection.request(
            verb,
            fields,
            what=f"the stream {self._names[1]!r}",
            call=self._call,
            credit=protocol.CREDIT,
            on_chunk=self.buffer.put,
            on_end=self._end,
        )

    @property
    def worker_name(self) -> str:
        """The worker that ran it, once the service has said so at the end."""
        return self._call.worker_name

    @property
    def error(self) -> BaseException | None:
        """What ended it, if its time was up."""
        return self._error

    @property
    def value(self) -> Any:
        """What the command returned; None until then."""
        future = self._request.future
        return future.result() if future.done() and not future.cancelled() and not future.exception() else None

    def result(self) -> Any:
        """Return the stream's value, or raise what ended it."""
        if self._error is not None:
            raise self._error
        return self._request.future.result(0)

    def remaining(self) -> float:
        return self._deadline - time.monotonic()

    def grant(self, call: object, count: int) -> None:
        self._connection.grant(self._request, count)

    def check_own_process(self) -> None:
        self._connection.check_own_process()

    def _end(self) -> None:
        if self._ended is not None:
            self._ended()
        self.buffer.finish()

    def abandon(self, call: object) -> None:
        self._connection.cancel(self._request)
        self.buffer.finish()  # also for another thread that reads it

    def abandon_later(self, call: object) -> None:
        self._connection.cancel_later(self._request)

    def expire(self, call: object) -> None:
        pool, command = self._names
        self._error = CallTimeout(pool, command, timeout=self._wait - MARGIN, phase="running")
        self._connection.cancel(self._request)
