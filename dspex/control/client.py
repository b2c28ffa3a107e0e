"""Call a supervisor in another process: `dspex.connect()` returns a client with a Supervisor's calls.

    with dspex.connect() as client:
        client.call("dspy", "ping")

Usable from any thread and any event loop; all share one connection and its one daemon thread. Errors are the classes
of `dspex.errors`, as a Supervisor raises them. What a client started ends with it: its calls are cancelled and its
sessions, but for shared ones, dropped. A connection that ended stays so: connect again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ..errors import (
    CallTimeout,
    ConnectionLost,
    InterruptedCall,
    ResourceExhausted,
    UnknownName,
    Unresponsive,
)
from ..pools.streams import AsyncStream, Stream
from . import run_files
from .call_request import (
    CallRequestOptions,
    StreamRequestOptions,
    call_request,
    events_request,
    logs_request,
    stream_request,
)
from .client_connection import ClientConnection
from .client_handles import Arguments, ClientPool, ClientSession
from .client_job import ClientJob
from .client_stream import RemoteStream
from .job_request import START_PATIENCE, JobRequestOptions, job_request
from .operator_client import MARGIN, PATIENCE, OperatorClient
from .protocol import Role, Verb
from .request_fields import Fields
from .unreachable import explained


def connect(path: str | os.PathLike[str] | None = None, *, name: str | None = None, operator: bool = False) -> Client:
    """Return a client of the supervisor that listens at `path`, or of the one called `name`.

    With neither: $DSPEX_SOCKET, else the supervisor called "default". An `operator` has a place also where max_clients
    are connected; it inspects and changes (status, health, events, resize, stop, ...) but makes no calls.

    Raises:
        NotRunning: nobody listens there: it says where, and who else runs.
        TooManyClients, ResourceExhausted, ProtocolError: it refuses us, and says why.
    """
    place = run_files.find_socket(path, name)
    with explained(place):
        return Client(place, operator=operator)


class AnswerWait(TypedDict):
    """How long a client waits for an answer; see `Client.ask`."""

    wait: float
    is_guess: bool


class Client(OperatorClient):
    """A supervisor in another process."""

    def __init__(self, path: str | os.PathLike[str], *, operator: bool = False) -> None:
        self.path = run_files.checked_path(Path(path))
        self._connection = ClientConnection(self.path, role=Role.OPERATOR if operator else Role.CLIENT)
        self._timeouts: dict[str, float] = self._connection.greeting.get("timeouts", {})

    # -- life --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the connection: calls under way are cancelled there and fail here, own sessions are dropped."""
        self._connection.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    @property
    def greeting(self) -> dict[str, Any]:
        """What the supervisor reported of itself: client, name, pid, version, kind, timeouts."""
        return dict(self._connection.greeting)

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(self._timeouts)

    # -- calls: as those of Supervisor -----------------------------------------------------------------------------

    def call(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any:
        """`Supervisor.call` over there; `shared=True` makes `session` one that all clients may use.

        Raises:
            UnknownName: there is no such option: session, shared, timeout and idempotent are those there are.
            NotRunning, ConnectionLost: the supervisor is gone; before the call was sent, or while it was under way.
        """
        fields = call_request(pool, command, arguments, **options)
        return self.ask(Verb.CALL, fields, what=f"the call {command!r}", **self._wait_for(fields))

    async def acall(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any:
        """`call`, awaited on the running loop. Cancelling the task cancels the call."""
        fields = call_request(pool, command, arguments, **options)
        return await self._aask(Verb.CALL, fields, what=f"the call {command!r}", **self._wait_for(fields))

    def stream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> Stream:
        """`Supervisor.stream` over there; its options are session, shared and timeout."""
        call = self._begin_stream(stream_request(pool, command, arguments, **options), loop=None)
        return Stream(call, call.buffer, call.grant, call)

    def astream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> AsyncStream:
        """`Supervisor.astream` over there; needs a running event loop."""
        fields = stream_request(pool, command, arguments, **options)
        call = self._begin_stream(fields, loop=asyncio.get_running_loop())
        return AsyncStream(call, call.buffer, call.grant, call)

    def session(
        self, pool: str, id: str | None = None, *, durable: bool = False, fresh: bool = False, shared: bool = False
    ) -> ClientSession:
        """`Supervisor.session` over there. Its id is this client's own, unless `shared`."""
        return ClientSession(self, pool, id, durable=durable, fresh=fresh, shared=shared)

    # -- looking at it and changing it -----------------------------------------------------------------------------

    def pool(self, name: str) -> ClientPool:
        """Return a pool by name.

        Raises:
            UnknownName: there is none; it lists the near names.
        """
        if name not in self._timeouts:
            raise UnknownName("pool", name, self._timeouts)
        return ClientPool(self, name)

    def events(self, *, follow: bool = False, recent: int | None = None) -> Stream:
        """Return the last events, each {"time", "name", "level", "facts"}; with `follow` also the coming ones."""
        call = RemoteStream(self._connection, "control", Verb.EVENTS, math.inf, loop=None)
        call.begin(Verb.EVENTS, events_request(follow=follow, recent=recent))
        return Stream(call, call.buffer, call.grant, call)

    def logs(
        self,
        pool: str | None = None,
        *,
        worker: int | None = None,
        follow: bool = False,
        recent: int | None = None,
    ) -> Stream:
        """Return the last lines of the supervisor's log, as `events`: of one pool, or of its worker of this number.

        Raises:
            UnknownName: there is no such pool.
        """
        call = RemoteStream(self._connection, "control", Verb.LOGS, math.inf, loop=None)
        call.begin(Verb.LOGS, logs_request(pool, worker, follow=follow, recent=recent))
        return Stream(call, call.buffer, call.grant, call)

    def job(self, id: str) -> ClientJob:
        """Return a handle of an optimization over there, by the id that `jobs` says; it may be asked from any thread.

        Raises:
            UnknownName: there is none of this id.
        """
        return ClientJob(self, str(self.job_row(id)["id"]))

    def job_events(self, id: str, *, follow: bool = True) -> Stream:
        """Return a job's events from the first, each {"number", "kind", "at", "facts"}; with `follow` until it ends."""
        call = RemoteStream(self._connection, "control", Verb.JOB_EVENTS, math.inf, loop=None)
        call.begin(Verb.JOB_EVENTS, {"id": id, "follow": follow})
        return Stream(call, call.buffer, call.grant, call)

    def optimize(
        self,
        program: str,
        trainset: Sequence[Mapping[str, Any]],
        *,
        metric: str | None = None,
        optimizer: str = "miprov2",
        valset: Sequence[Mapping[str, Any]] | None = None,
        **options: Unpack[JobRequestOptions],
    ) -> ClientJob:
        """Start an optimization over there and return its handle; it goes on when this client has gone.

        `program` is a signature's text, or "package.module:Class" of the `mipro` pool's `imports`; `metric` a built-in
        one's name, or a function's of those imports. It waits until the job has been checked as far as the service
        itself can; what its worker refuses ends the job as "failed" before anything is paid.

        Raises:
            UsageError: the supervisor over there starts no jobs for clients.
            UnknownName, SettingsError, InvalidInput, LMConfigurationError: it cannot be; nothing was paid.
            PoolSaturated: too many jobs of clients are under way.
        """
        fields = job_request(program, trainset, metric=metric, optimizer=optimizer, valset=valset, **options)
        return ClientJob(self, str(self.ask(Verb.START_JOB, fields, what="the optimization", wait=START_PATIENCE)))

    def on_event(self, subscriber: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        """Call `subscriber(event)` on a thread of its own from now on; return what ends it."""
        events = self.events(follow=True, recent=0)
        thread = threading.Thread(target=_deliver, args=(events, subscriber), name="dspex-client-events", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread
            events.close()
            raise ResourceExhausted(
                "threads", "a subscriber of events", remedy="Raise the limit (`ulimit -u`)."
            ) from error
        return events.close

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
        fields = fields or {}
        request = self._connection.request(verb, fields, what=what or verb)
        try:
            while not request.wait(wait):
                if not (is_guess and self._answers()) and not request.future.done():
                    raise self._late(verb, fields, wait)
            return request.future.result()
        except BaseException:  # also Ctrl-C: it is not wanted any more over there
            self._connection.cancel(request)
            raise

    def __repr__(self) -> str:
        return f"<client of the supervisor at {self.path}; {'open' if self.is_open else 'closed'}>"

    # ============================================================================================================

    def _begin_stream(self, fields: Fields, *, loop: asyncio.AbstractEventLoop | None) -> RemoteStream:
        wait = self._wait_for(fields)["wait"]
        call = RemoteStream(self._connection, fields["pool"], fields["command"], wait, loop=loop)
        call.begin(Verb.STREAM, fields)
        return call

    def _wait_for(self, fields: Fields) -> AnswerWait:
        """Return how long to wait for a call; without a timeout of its own that is only a guess."""
        return {"wait": self._limit_of(fields) + MARGIN, "is_guess": fields.get("timeout") is None}

    async def _aask(self, verb: str, fields: Fields, *, what: str, wait: float, is_guess: bool) -> Any:
        request = self._connection.request(verb, fields, what=what)
        answer = asyncio.wrap_future(request.future)
        answer.add_done_callback(lambda it: it.cancelled() or it.exception())  # looked at, if nobody awaits it any more
        try:
            while not (await asyncio.wait((answer,), timeout=None if math.isinf(wait) else wait))[0]:
                if not (is_guess and await asyncio.to_thread(self._answers)) and not answer.done():
                    raise self._late(verb, fields, wait)
            return answer.result()
        except BaseException:  # a cancelled task, as above
            self._connection.cancel(request)
            raise

    def _late(self, verb: str, fields: Fields, wait: float) -> InterruptedCall:
        """Return the error for an answer that should be here by now: the supervisor is stopped or stuck."""
        if verb != Verb.CALL:
            return Unresponsive(str(self.path), verb, timeout=wait)
        limit = wait - MARGIN  # what the caller asked for
        return CallTimeout(str(fields["pool"]), str(fields["command"]), timeout=limit, phase="running")


def _deliver(events: Iterator[dict[str, Any]], subscriber: Callable[[dict[str, Any]], object]) -> None:
    try:
        for event in events:
            subscriber(event)
    except (ConnectionLost, concurrent.futures.CancelledError):
        pass  # the connection, or the subscription, has ended
