"""The client of a running supervisor: `dspex.connect()` gives one, with a Supervisor's calls.

    with dspex.connect() as client:
        client.call("dspy", "ping")

Usable from any thread and any event loop; all share one connection and its one daemon thread. Errors are the classes
of `dspex.errors`, as a Supervisor raises them. What a client started ends with it: its calls are cancelled and its
sessions, but for shared ones, forgotten. A connection that ended stays so: connect again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import (
    CallTimeout,
    ConnectionLost,
    InterruptedCall,
    NotRunning,
    ResourceExhausted,
    UnknownName,
    Unresponsive,
)
from ..pools.streams import AsyncStream, Stream
from . import run_files
from .client_connection import ClientConnection, ClientRequest
from .client_handles import Arguments, ClientPool, ClientSession
from .client_stream import RemoteStream
from .command_client import MARGIN, PATIENCE
from .protocol import Role, Verb
from .unreachable import explained

if TYPE_CHECKING:
    from ..pools.call import Call
    from ..pools.stats import PoolHealth, PoolStats


def connect(path: str | os.PathLike[str] | None = None, *, name: str | None = None, operator: bool = False) -> Client:
    """Give a client of the supervisor that listens at `path`, or of the one called `name`.

    With neither: $DSPEX_SOCKET, else the supervisor called "default". An `operator` has a place also where max_clients
    are connected; it looks and steers (status, health, events, resize, stop, ...) but makes no calls.

    Raises:
        NotRunning: nobody listens there: it says where, and who else runs.
        TooManyClients, ResourceExhausted, ProtocolError: it refuses us, and says why.
    """
    place = run_files.find_socket(path, name)
    with explained(place):
        return Client(place, operator=operator)


class Client:
    """A supervisor in another process."""

    def __init__(self, path: str | os.PathLike[str], *, operator: bool = False) -> None:
        self.path = run_files.checked_path(Path(path))
        self._link = ClientConnection(self.path, role=Role.OPERATOR if operator else Role.CLIENT)
        self._timeouts: dict[str, float] = self._link.greeting.get("timeouts", {})

    # -- life --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the connection: calls under way are cancelled there and fail here, own sessions are forgotten."""
        self._link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    @property
    def is_open(self) -> bool:
        return self._link.is_open

    @property
    def greeting(self) -> dict[str, Any]:
        """What the supervisor said of itself: client, name, pid, version, kind, timeouts."""
        return dict(self._link.greeting)

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(self._timeouts)

    # -- calls: as those of Supervisor -----------------------------------------------------------------------------

    def call(
        self,
        pool: str,
        command: str,
        arguments: Arguments | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
        shared: bool = False,
    ) -> Any:
        """`Supervisor.call` over there; `shared` makes `session` one that all clients may use.

        Raises:
            NotRunning, ConnectionLost: the supervisor is gone; before the call was sent, or while it was under way.
        """
        asked = _call_arguments(pool, command, arguments, session, timeout, idempotent=idempotent, shared=shared)
        wait = self._wait_for(pool, timeout)
        return self.ask(Verb.CALL, asked, what=f"the call {command!r}", wait=wait, is_guess=timeout is None)

    async def acall(
        self,
        pool: str,
        command: str,
        arguments: Arguments | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
        shared: bool = False,
    ) -> Any:
        """`call`, awaited on the running loop. Cancelling the task cancels the call."""
        asked = _call_arguments(pool, command, arguments, session, timeout, idempotent=idempotent, shared=shared)
        wait = self._wait_for(pool, timeout)
        return await self._aask(Verb.CALL, asked, what=f"the call {command!r}", wait=wait, is_guess=timeout is None)

    def stream(
        self,
        pool: str,
        command: str,
        arguments: Arguments | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        shared: bool = False,
    ) -> Stream:
        """`Supervisor.stream` over there."""
        asked = _call_arguments(pool, command, arguments, session, timeout, shared=shared)
        call = RemoteStream(self._link, pool, command, self._wait_for(pool, timeout), loop=None)
        call.begin(Verb.STREAM, asked)
        return Stream(cast("Call", call), call.buffer, call.grant, call)

    def astream(
        self,
        pool: str,
        command: str,
        arguments: Arguments | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        shared: bool = False,
    ) -> AsyncStream:
        """`Supervisor.astream` over there; needs a running event loop."""
        asked = _call_arguments(pool, command, arguments, session, timeout, shared=shared)
        loop = asyncio.get_running_loop()
        call = RemoteStream(self._link, pool, command, self._wait_for(pool, timeout), loop=loop)
        call.begin(Verb.STREAM, asked)
        return AsyncStream(cast("Call", call), call.buffer, call.grant, call)

    def session(
        self, pool: str, id: str | None = None, *, durable: bool = False, fresh: bool = False, shared: bool = False
    ) -> ClientSession:
        """`Supervisor.session` over there. Its id is this client's own, unless `shared`."""
        return ClientSession(self, pool, id, durable=durable, fresh=fresh, shared=shared)

    # -- looking at it and changing it -----------------------------------------------------------------------------

    def pool(self, name: str) -> ClientPool:
        """Give a pool by name.

        Raises:
            UnknownName: there is none; it lists the near names.
        """
        if name not in self._timeouts:
            raise UnknownName("pool", name, self._timeouts)
        return ClientPool(self, name)

    def status(self) -> dict[str, Any]:
        """Give {"supervisor": who it is, "pools": as `stats`, "health": as `health`}."""
        status: dict[str, Any] = self.ask(Verb.STATUS, {}, what="status")
        return status

    def stats(self) -> dict[str, PoolStats]:
        """Give what each pool is doing now."""
        pools: dict[str, PoolStats] = self.status()["pools"]
        return pools

    def health(self) -> dict[str, PoolHealth]:
        """Give whether each pool can take a call now, and why not."""
        rows: dict[str, PoolHealth] = self.ask(Verb.HEALTH, {}, what="health")
        return rows

    def events(self, *, follow: bool = False, recent: int | None = None) -> Stream:
        """Give the last events, each {"time", "name", "level", "facts"}; with `follow` also the coming ones."""
        asked: Arguments = {"follow": follow}
        if recent is not None:
            asked["recent"] = recent
        call = RemoteStream(self._link, "control", Verb.EVENTS, math.inf, loop=None)
        call.begin(Verb.EVENTS, asked)
        return Stream(cast("Call", call), call.buffer, call.grant, call)

    def on_event(self, subscriber: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        """Call `subscriber(event)` on a thread of its own from now on; gives what ends it."""
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

    def stop(self, grace: float | None = None) -> dict[str, Any]:
        """Ask the supervisor to stop, as `Supervisor.stop(grace)`; returns at once with its {pid, kind}."""
        answer: dict[str, Any] = self.ask(Verb.STOP, {"grace": grace}, what="stop")
        return answer

    def ask(self, verb: str, arguments: Arguments, *, what: str, wait: float = PATIENCE, is_guess: bool = False) -> Any:
        """Make a request and give its answer; `wait` seconds at most, or while the supervisor answers at all.

        The latter if `wait` is a guess: a reload over there may have given the pool another deadline.
        """
        request = self._link.request(verb, arguments, what=what)
        try:
            while not _has_ended(request, wait):
                if not (is_guess and self._answers()) and not request.future.done():
                    raise self._late(verb, arguments, wait)
            return request.future.result()
        except BaseException:
            self._link.cancel(request)
            raise

    def __repr__(self) -> str:
        return f"<client of the supervisor at {self.path}; {'open' if self.is_open else 'closed'}>"

    # ============================================================================================================

    def _wait_for(self, pool: str, timeout: float | None) -> float:
        own = self._timeouts.get(pool, math.inf) if timeout is None else timeout
        return own + MARGIN

    async def _aask(
        self, verb: str, arguments: Arguments, *, what: str, wait: float = PATIENCE, is_guess: bool = False
    ) -> Any:
        request = self._link.request(verb, arguments, what=what)
        answer = asyncio.wrap_future(request.future)
        answer.add_done_callback(lambda it: it.cancelled() or it.exception())  # looked at, if nobody awaits it any more
        try:
            while not (await asyncio.wait((answer,), timeout=None if math.isinf(wait) else wait))[0]:
                if not (is_guess and await asyncio.to_thread(self._answers)) and not answer.done():
                    raise self._late(verb, arguments, wait)
            return answer.result()
        except BaseException:
            self._link.cancel(request)
            raise

    def _answers(self) -> bool:
        """Whether the supervisor is neither stopped nor stuck."""
        try:
            self.health()
        except (InterruptedCall, NotRunning):
            return False
        return True

    def _late(self, verb: str, arguments: Arguments, wait: float) -> InterruptedCall:
        """The supervisor should have answered by now: it is stopped or stuck."""
        if verb != Verb.CALL:
            return Unresponsive(str(self.path), verb, timeout=wait)
        limit = wait - MARGIN  # what the caller asked for
        return CallTimeout(str(arguments["pool"]), str(arguments["command"]), timeout=limit, phase="running")


def _has_ended(request: ClientRequest, wait: float) -> bool:
    try:
        request.future.exception(None if math.isinf(wait) else wait)
    except concurrent.futures.TimeoutError:
        return request.future.done()
    return True


def _call_arguments(
    pool: str,
    command: str,
    arguments: Arguments | None,
    session: str | None,
    timeout: float | None,
    *,
    idempotent: bool = False,
    shared: bool = False,
) -> Arguments:
    asked: Arguments = {"pool": pool, "command": command, "arguments": {} if arguments is None else arguments}
    if session is not None:
        asked["session"] = session
        asked["shared"] = shared
    if timeout is not None:
        asked["timeout"] = timeout
    if idempotent:
        asked["idempotent"] = True
    return asked


def _deliver(events: Iterator[dict[str, Any]], subscriber: Callable[[dict[str, Any]], object]) -> None:
    try:
        for event in events:
            subscriber(event)
    except (ConnectionLost, concurrent.futures.CancelledError):
        pass  # the connection, or the subscription, has ended
