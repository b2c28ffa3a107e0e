"""The `dspex` command's client: one request at a time over one blocking socket, on the calling thread.

It starts no thread and opens one descriptor, so that a machine that has run out of either can still be looked at and
steered. By default it takes one of the places that are kept for operators. What it started ends when it is closed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from dspex_worker.wire import Malformed

from ..errors import CallTimeout, ConnectionLost, DspexError, Unresponsive
from . import error_messages, protocol
from .call_request import (
    CallRequestOptions,
    StreamRequestOptions,
    call_request,
    events_request,
    logs_request,
    stream_request,
)
from .dial import CHUNK, dial, request_frame
from .operator_client import MARGIN, PATIENCE, OperatorClient
from .protocol import Kind, Message, Role, Verb
from .request_fields import Fields

Arguments = dict[str, Any]


class DirectClient(OperatorClient):
    """A supervisor in another process, for one thread that can wait."""

    def __init__(self, path: Path, *, role: str = Role.OPERATOR) -> None:
        """Connect.

        Raises:
            NotRunning: nobody answers there.
            TooManyClients, ResourceExhausted, ProtocolError: it refuses us; the message says why.
        """
        hello = dial(path, role=role)
        self.path = path
        self.greeting = hello.greeting
        self._limit = hello.limit
        self.peer_pid = hello.pid
        self._timeouts = hello.greeting.get("timeouts", {})
        self._sock, self._frames = hello.sock, hello.frames
        self._ids = itertools.count(1)
        self._messages: Iterator[Message] = iter(())

    def close(self) -> None:
        """End the connection: what runs for it there is cancelled."""
        self._sock.close()

    def interrupt(self) -> None:
        """End the connection from another thread: what waits for an answer there gets ConnectionLost."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    # -- an operator's -------------------------------------------------------------------------------------------

    def events(self, *, follow: bool, recent: int | None) -> Iterator[dict[str, Any]]:
        """Yield the last events, and with `follow` the coming ones until the supervisor closes."""
        fields = events_request(follow=follow, recent=recent)
        yield from DirectStream(self, Verb.EVENTS, fields, wait=math.inf if follow else PATIENCE)

    def logs(
        self, pool: str | None, worker: int | None, *, follow: bool, recent: int | None
    ) -> Iterator[dict[str, Any]]:
        """Yield the last lines of the log, of a pool or of its worker of this number; with `follow` also the coming."""
        fields = logs_request(pool, worker, follow=follow, recent=recent)
        yield from DirectStream(self, Verb.LOGS, fields, wait=math.inf if follow else PATIENCE)

    def job_events(self, id: str, *, follow: bool = True) -> Iterator[dict[str, Any]]:
        """Yield a job's events from the first; with `follow` until it ends."""
        wait = math.inf if follow else PATIENCE
        yield from DirectStream(self, Verb.JOB_EVENTS, {"id": id, "follow": follow}, wait=wait)

    def ask(self, verb: str, fields: Fields | None = None, *, what: str = "", wait: float = PATIENCE) -> Any:
        return self._result(self._send(verb, fields or {}), verb, wait, what=what)

    # -- a client's ----------------------------------------------------------------------------------------------

    def call(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any:
        """`Supervisor.call` over there; the options are those of `Client.call`."""
        fields = call_request(pool, command, arguments, **options)
        id = self._send(Verb.CALL, fields)
        limit = self._limit_of(fields)
        while True:
            try:
                return self._result(id, Verb.CALL, limit + MARGIN, what=f"the call {command!r}")
            except Unresponsive:
                # The timeout of the hello is a guess by now: a reload over there may have given the pool another one.
                if "timeout" not in fields and self._answers():
                    continue
                raise CallTimeout(pool, command, timeout=limit, phase="running") from None

    def stream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> DirectStream:
        """`Supervisor.stream` over there: iterate over its chunks; `.value` is its result afterwards."""
        fields = stream_request(pool, command, arguments, **options)
        return DirectStream(self, Verb.STREAM, fields, wait=self._limit_of(fields) + MARGIN)

    # ============================================================================================================

    def _send(self, verb: str, fields: Fields, *, credit: int | None = None) -> int:
        id = next(self._ids)
        meta = {} if credit is None else {"credit": credit}
        self._write(request_frame(Kind.CALL, id, verb, fields, meta, limit=self._limit), verb)
        return id

    def _write(self, frame: bytes, what: str) -> None:
        self._sock.settimeout(PATIENCE)
        try:
            self._sock.sendall(frame)
        except TimeoutError:
            raise Unresponsive(str(self.path), what, timeout=PATIENCE) from None
        except OSError as error:
            raise ConnectionLost(str(self.path), _reason(error), what=what) from None

    def _result(self, id: int, verb: str, wait: float, *, what: str = "") -> Any:
        deadline = time.monotonic() + wait
        while True:
            match self._next(deadline, what or verb, wait):
                case [Kind.RESULT, answered, value, _] if answered == id:
                    return value
                case [Kind.ERROR, answered, described, _] if answered in (id, 0):
                    raise error_messages.rebuild(described)
                case _:
                    pass

    def _next(self, deadline: float, what: str, wait: float) -> Message:
        """Return the next message.

        Raises:
            Unresponsive: none came until the deadline.
            ConnectionLost: none will come.
        """
        while True:
            try:
                for message in self._messages:
                    return message
                self._messages = map(protocol.read, self._frames.feed(self._read(deadline)))
            except TimeoutError as error:
                if isinstance(error, DspexError):
                    raise
                raise Unresponsive(str(self.path), what, timeout=wait) from None
            except Malformed as error:
                reason = f"the service sent something that is not the protocol: {error}"
                raise ConnectionLost(str(self.path), reason, what=what) from None
            except OSError as error:
                raise ConnectionLost(str(self.path), _reason(error), what=what) from None

    def _read(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        self._sock.settimeout(None if math.isinf(left) else max(0.001, left))
        data = self._sock.recv(CHUNK)
        if not data:
            raise ConnectionResetError("the supervisor closed it")
        return data


class DirectStream:
    """The chunks of one streamed request; `value` is its result once they have been read."""

    def __init__(self, client: DirectClient, verb: str, fields: Fields, *, wait: float) -> None:
        self.value: Any = None
        self._client = client
        self._what = f"the stream {fields.get('command', verb)!r}"
        self._wait = wait
        self._deadline = time.monotonic() + wait
        self._id = client._send(verb, fields, credit=protocol.CREDIT)

    def __iter__(self) -> Iterator[Any]:
        while True:
            match self._client._next(self._deadline, self._what, self._wait):
                case [Kind.CHUNK, id, chunk] if id == self._id:
                    yield chunk
                    self._client._write(request_frame(Kind.CREDIT, self._id, 1), self._what)
                case [Kind.END, id, value, _] if id == self._id:
                    self.value = value
                    return
                case [Kind.ERROR, id, described, _] if id in (self._id, 0):
                    raise error_messages.rebuild(described)
                case _:
                    pass


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
