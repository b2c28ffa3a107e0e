"""Make a client's requests and wait for their answers, in a thread or on an event loop.

What concerns the service itself (its status, a resize) is asked now, or fails. What is to be done there (a call, a
language model's answer) waits for a lost connection to come back, until its own deadline: a request that the service
certainly never had is sent again, an idempotent one once more. Everything else ends with `ConnectionLost`.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import CallTimeout, ConnectionLost, InterruptedCall, NotRunning, Unresponsive
from ..pools.streams import AsyncStream, Stream
from . import run_files
from .callback_answers import CallbackAnswers, answered_within
from .client_connection import ClientConnection
from .client_link import ClientLink
from .client_pool import Cancel, cancelled
from .client_sessions import ClientSessions, Home
from .client_stream import RemoteStream
from .operator_client import MARGIN, PATIENCE, OperatorClient
from .protocol import Role, Verb
from .remote_call import RemoteCall
from .request_fields import Fields


class ClientRequests(OperatorClient):
    """A client's requests, over a connection that is made again when it is lost."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        operator: bool,
        reconnects: bool,
        facts: Mapping[str, Any],
        on_change: Callable[[str], None],
    ) -> None:
        self.path = run_files.checked_path(Path(path))
        self.answers = CallbackAnswers()
        self._known_sessions = ClientSessions()
        role = Role.OPERATOR if operator else Role.CLIENT

        def connect(on_end: Callable[[], None]) -> ClientConnection:
            made: list[ClientConnection] = []

            def ended() -> None:
                for connection in made:
                    self.answers.end(connection)
                on_end()

            connection = ClientConnection(self.path, role=role, facts=facts, on_ask=self.answers.take, on_end=ended)
            made.append(connection)
            return connection

        self._link = ClientLink(self.path, connect, reconnects=reconnects, on_change=on_change)
        self._timeouts: dict[str, float] = self._link.greeting().get("timeouts", {})

    def ask(
        self,
        verb: str,
        fields: Fields | None = None,
        *,
        what: str = "",
        wait: float = PATIENCE,
        is_guess: bool = False,
    ) -> Any:
        """Make a request and return its answer; wait for it `wait` seconds at most.

        If `wait` is a guess, wait as long as the supervisor answers others: a reload over there may have given the pool
        another deadline.
        """
        self._link.check_own_process()
        return self._answer(self._link.connection, verb, fields or {}, what=what or verb, wait=wait, is_guess=is_guess)

    def send_only(self, verb: str, fields: Fields) -> None:
        """Make a request whose answer nobody waits for; nothing if there is no connection."""
        if self._link.is_open and not self._link.is_forked:
            self._link.connection.request(verb, fields, what=verb)
            if verb == Verb.CLOSE_SESSION:
                self._known_sessions.closed(fields)

    # -- work ----------------------------------------------------------------------------------------------------

    def perform(
        self, verb: str, fields: Fields, *, what: str, call: RemoteCall | None = None, cancel: Cancel | None = None
    ) -> Any:
        """Have something done, and return its answer; wait for the service while it is away.

        Raises:
            NotRunning: it did not come back in time, or there will be no connection any more.
            ConnectionLost: the connection ended while it was under way.
        """
        attempt = WorkAttempt(fields, self._limit_of(fields))
        while True:
            connection = self._link.ready(attempt.left())
            try:
                now = self._prepared(connection, attempt.fields())
                self._reopen(connection, now)
                wait, is_guess = attempt.left() + MARGIN, fields.get("timeout") is None
                value = self._answer(
                    connection, verb, now, what=what, wait=wait, is_guess=is_guess, call=call, cancel=cancel
                )
            except (ConnectionLost, NotRunning) as error:
                if self._link.is_closed or not attempt.goes_on(error):
                    raise
                continue
            self._note_session(fields, call, connection)
            return value

    async def aperform(self, verb: str, fields: Fields, *, what: str, call: RemoteCall | None = None) -> Any:
        """`perform`, awaited. Cancelling the task cancels the request."""
        attempt = WorkAttempt(fields, self._limit_of(fields))
        while True:
            connection = await self._link.aready(attempt.left())
            try:
                now = self._prepared(connection, attempt.fields())
                await self._areopen(connection, now)
                wait, is_guess = attempt.left() + MARGIN, fields.get("timeout") is None
                value = await self._aanswer(connection, verb, now, what=what, wait=wait, is_guess=is_guess, call=call)
            except (ConnectionLost, NotRunning) as error:
                if self._link.is_closed or not attempt.goes_on(error):
                    raise
                continue
            self._note_session(fields, call, connection)
            return value

    def started(
        self, verb: str, fields: Fields, *, pool: str, command: str, limit: float, is_async: bool = False
    ) -> Stream | AsyncStream:
        """Start a streamed request; a thread waits for the service, an event loop does not."""
        connection = self._link.connection if is_async or math.isinf(limit) else self._link.ready(limit)
        connection.check_usable()
        now = self._prepared(connection, fields)
        if not is_async:
            self._reopen(connection, now)
        loop = asyncio.get_running_loop() if is_async else None
        call = RemoteCall(command, limit)
        call.loop = loop
        stream = RemoteStream(
            connection,
            call,
            pool,
            limit + MARGIN,
            loop=loop,
            on_end=lambda: self._note_session(fields, call, connection),
        )
        stream.begin(verb, now)
        if is_async:
            return AsyncStream(stream, stream.buffer, stream.grant, stream)
        return Stream(stream, stream.buffer, stream.grant, stream)

    # ============================================================================================================

    def _answer(
        self,
        connection: ClientConnection,
        verb: str,
        fields: Fields,
        *,
        what: str,
        wait: float,
        is_guess: bool,
        call: RemoteCall | None = None,
        cancel: Cancel | None = None,
    ) -> Any:
        request = connection.request(verb, fields, what=what, call=call)
        take_back = None
        try:
            if cancel is not None:
                take_back = cancel(lambda: connection.cancel(request, cancelled(fields)))
            while not request.wait(wait):
                if not (is_guess and self._answers()) and not request.future.done():
                    raise self._late(verb, fields, wait)
            return request.future.result()
        except BaseException:  # also Ctrl-C: it is not wanted any more over there
            connection.cancel(request)
            raise
        finally:
            if take_back is not None:
                take_back()

    async def _aanswer(
        self,
        connection: ClientConnection,
        verb: str,
        fields: Fields,
        *,
        what: str,
        wait: float,
        is_guess: bool,
        call: RemoteCall | None = None,
    ) -> Any:
        if call is not None:
            call.loop = asyncio.get_running_loop()
        request = connection.request(verb, fields, what=what, call=call)
        answer = asyncio.wrap_future(request.future)
        answer.add_done_callback(lambda it: it.cancelled() or it.exception())  # looked at, if nobody awaits it any more
        try:
            while not (await asyncio.wait((answer,), timeout=None if math.isinf(wait) else wait))[0]:
                if not (is_guess and await asyncio.to_thread(self._answers)) and not answer.done():
                    raise self._late(verb, fields, wait)
            return answer.result()
        except BaseException:  # a cancelled task, as above
            connection.cancel(request)
            raise

    def _prepared(self, connection: ClientConnection, fields: Fields) -> Fields:
        """Return a call's fields, nested in the callback that this code answers, if it does."""
        within = answered_within(connection)
        return fields if within is None or "pool" not in fields else {**fields, "within": within}

    # -- sessions --

    def _home(self, connection: ClientConnection, fields: Fields) -> Home:
        if fields.get("shared"):
            return "service", connection.greeting.get("pid")
        return "connection", connection.greeting.get("client")

    def _reopen(self, connection: ClientConnection, fields: Fields) -> None:
        if (again := self._known_sessions.to_reopen(fields, self._home(connection, fields))) is not None:
            self._answer(connection, Verb.OPEN_SESSION, again, what="opening a session", wait=PATIENCE, is_guess=False)
            self._known_sessions.reopened(again, self._home(connection, fields))

    async def _areopen(self, connection: ClientConnection, fields: Fields) -> None:
        if (again := self._known_sessions.to_reopen(fields, self._home(connection, fields))) is not None:
            what = "opening a session"
            await self._aanswer(connection, Verb.OPEN_SESSION, again, what=what, wait=PATIENCE, is_guess=False)
            self._known_sessions.reopened(again, self._home(connection, fields))

    def _note_session(self, fields: Fields, call: RemoteCall | None, connection: ClientConnection) -> None:
        if call is not None and fields.get("session") is not None:
            self._known_sessions.answered(fields, call.notes, self._home(connection, fields))

    def _limit_of(self, fields: Fields) -> float:
        """Return how long a request may take: its own timeout, else the one that its pool had at the hello."""
        return super()._limit_of(fields) if "pool" in fields else float(fields.get("timeout") or PATIENCE)

    def _late(self, verb: str, fields: Fields, wait: float) -> InterruptedCall:
        """Return the error for an answer that should be here by now: the supervisor is stopped or stuck."""
        if verb != Verb.CALL:
            return Unresponsive(str(self.path), verb, timeout=wait)
        limit = wait - MARGIN  # what the caller asked for
        return CallTimeout(str(fields["pool"]), str(fields["command"]), timeout=limit, phase="running")


class WorkAttempt:
    """One thing to be done, which may take more than one request."""

    def __init__(self, fields: Fields, limit: float) -> None:
        self._fields = fields
        self._limit = limit
        self._began = time.monotonic()
        self._may_repeat = fields.get("idempotent") is True
        self._is_first = True

    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self._limit - (time.monotonic() - self._began))

    def fields(self) -> Fields:
        """Return what is asked, with the time that is left."""
        if self._is_first:
            self._is_first = False
            if self._limit - self.left() < 0.01:
                return self._fields
        return self._fields if math.isinf(self._limit) else {**self._fields, "timeout": self.left()}

    def goes_on(self, error: ConnectionLost | NotRunning) -> bool:
        """Whether to ask again after this error, and note in it whether its caller may."""
        if isinstance(error, ConnectionLost) and error.retryable != "now" and self._may_repeat:
            error.retryable = "now"
            self._may_repeat = False
            return self.left() > 0
        return error.retryable == "now" and self.left() > 0
