"""Serve a running supervisor's control socket, which only its own user can use.

    service = Service(supervisor, name="web").start()

One daemon thread runs one event loop for all clients: calls are awaited, so a slow call or a slow reader holds up
nobody else. It installs no signal handler and never stops the supervisor by itself, except when a client asks for it.
It does not write logs, and changes no settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import ResourceExhausted
from ..events import Event, Name
from ..lm.redaction import redact
from ..pools.inspection import ClientRow
from ..pools.supervisor import Supervisor
from . import claims, run_files, run_folders
from .backlog import Backlog, LargeRequests
from .connection_places import MAX_CLIENTS, ConnectionPlaces
from .embedded_stop import EmbeddedStop
from .event_log import LINES, EventLog
from .handlers import Handlers, ServiceFacts
from .held_requests import HeldRequests
from .listener import Listener
from .server_connection import ServerConnection, ServerResources
from .throttled_events import ThrottledEvents
from .upkeep import LOOK, Upkeep

if TYPE_CHECKING:
    from ..telemetry.http_listener import HttpListener

CLOSE_GRACE = 1.0  # seconds that the answers of calls which have just ended get to reach their clients

_living: weakref.WeakSet[Service] = weakref.WeakSet()


class Service:
    """Answers on the control socket. Usable as a context manager; `start` and `close` may come from any thread."""

    def __init__(
        self,
        supervisor: Supervisor,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str = run_files.DEFAULT_NAME,
        kind: str = "embedded",
        on_stop: Callable[[float | None], None] | None = None,
        on_restart: Callable[[float | None], None] | None = None,
        max_clients: int = MAX_CLIENTS,
        http: int | None = None,
    ) -> None:
        """`on_stop(grace)` is called when a client asks to stop, and must not block; else `EmbeddedStop` does it.

        `on_restart(grace)`, likewise, is for a process that exists for this service alone.
        `http` is a port of 127.0.0.1 (0: a free one, see `http.url`) for `/livez`, `/readyz` and `/metrics`.

        Raises:
            SettingsError: the path or the port cannot be.
        """
        self.supervisor = supervisor
        self.path = _path(path, name)
        self.run = run_files.new_run_file(name, self.path, kind)
        self.max_clients = max_clients
        self.events = EventLog()
        self.lines = EventLog(least=logging.INFO, count=LINES)
        self._on_restart = on_restart
        self.http = None if http is None else _http_listener(supervisor, http)
        self._on_stop = (
            on_stop
            or EmbeddedStop(supervisor, record_end=self.record_end, close=self.close, report=self._report_error).request
        )
        frame_limit = max(supervisor.pool(pool).config.frame_limit for pool in supervisor.pools)
        self._resources = ServerResources(
            ConnectionPlaces(max_clients),
            Backlog(),
            LargeRequests(frame_limit),
            HeldRequests(),
            frame_limit,
            ThrottledEvents(supervisor.emit),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._counter = 0
        self._claim: claims.Claim | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._is_serving = threading.Event()
        self._close_lock = threading.Lock()

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> Service:
        """Claim the socket and answer on it from now on.

        Raises:
            SettingsError: the folder is not private, the path too long, or a living supervisor has it. Or the port
                of `http` is taken.
            ResourceExhausted: the system has no thread for it.
        """
        self._claim = claims.claim(self.path, self.run)
        self.run = self._claim.run
        self._listener = Listener(
            self._claim.listener, serve=self._begin_connection, report=self._report_error, make_room=self._make_room
        )
        self._unsubscribe = self.supervisor.on_event(self._take)
        self._leave_inspection = self.supervisor.inspection.add_service(self.client_rows)
        self._thread = threading.Thread(target=self._run, name="dspex-control", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # "can't start new thread"
            self._release()
            raise ResourceExhausted(
                "threads", "the control service", remedy="Raise the limit (`ulimit -u`)."
            ) from error
        self._is_serving.wait()
        _living.add(self)
        try:
            if self.http is not None:
                self.http.start()
        except BaseException:  # whatever it is, a service that did not start leaves nothing
            self.close()
            raise
        return self

    def close(self) -> None:
        """Take no more clients, let replies on their way arrive, and remove the socket. May be called twice."""
        with self._close_lock:
            thread = self._thread
            if thread is None or self.run.pid != os.getpid():
                return
            if self.http is not None:
                self.http.close()
            if self._loop is not None and self._closing is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                    self._loop.call_soon_threadsafe(self._closing.set)
            if thread is threading.current_thread():
                self._listener.end()
            else:
                thread.join(timeout=5 * CLOSE_GRACE)
            self._release()

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def clients(self) -> int:
        """How many clients are connected now, operators and strangers not counted."""
        return len(self._resources.places.clients)

    def client_rows(self) -> list[ClientRow]:
        """Return a row for each client and operator; any thread."""
        places, loop = self._resources.places, self._loop
        if loop is None:
            return []
        return [connection.row(loop.time()) for connection in (*places.clients, *places.operators)]

    def record_end(self, calls_cut: int) -> None:
        """Record how the stop went, for those who wait for it."""
        if self._claim is not None:
            claims.record_end(self._claim, calls_cut)

    # ============================================================================================================

    def _release(self) -> None:
        """Remove what was claimed; the lock of a process that exists for this service ends with the process."""
        self._thread = None
        self._unsubscribe()
        self._leave_inspection()
        self._listener.close()  # its reserve is what the removal below may need
        claims.release(self.path, self.run.token)
        if self.run.kind == "embedded" and self._claim is not None:
            self._claim.close()
            self._claim = None

    def _take(self, event: Event) -> None:
        self.events.take(event)
        self.lines.take(event)

    # -- the loop's thread --

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._is_serving.set()  # also when it could not serve: `start` must not hang

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: self._report_error(context.get("exception")))
        self._closing = asyncio.Event()
        self._listener.open()
        upkeep = asyncio.create_task(self._upkeep())
        self._is_serving.set()
        await self._closing.wait()
        upkeep.cancel()
        self._listener.end()
        self._resources.backlog.close()
        await self._finish_connections()

    async def _upkeep(self) -> None:
        """Look after the files by which clients find it."""
        assert self._claim is not None
        upkeep = Upkeep(self._claim, listen_on=self._listener.listen_on, emit=self.supervisor.emit)
        while True:
            await asyncio.sleep(LOOK)
            upkeep.look()

    def _begin_connection(self, sock: socket.socket, is_on_reserve: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._serve_connection(sock, is_on_reserve))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_connection(self, sock: socket.socket, is_on_reserve: bool) -> None:
        """Serve one connection to its end."""
        try:
            connection = await self._connection(sock, is_on_reserve)
            try:
                await connection.serve()
            finally:
                self._resources.places.leave(connection)
        except Exception as error:  # one connection's trouble, such as no memory for a moment
            self._report_error(error)
        finally:
            self._listener.replenish()

    async def _connection(self, sock: socket.socket, is_on_reserve: bool) -> ServerConnection:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
        except BaseException:  # also a task that is cancelled: nobody else closes it
            sock.close()
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._counter += 1
        client = f"c{self._counter}-{secrets.token_hex(3)}"
        connection = ServerConnection(
            reader,
            writer,
            client=client,
            is_on_reserve=is_on_reserve,
            handlers=Handlers(
                client,
                self.supervisor,
                self.events,
                lines=self.lines,
                facts=self._facts,
                on_stop=self._on_stop,
                on_restart=self._on_restart,
            ),
            resources=self._resources,
        )
        if (displaced := self._resources.places.arrive(connection)) is not None:
            displaced.dismiss("others came, and this one has said nothing")
        return connection

    def _facts(self) -> ServiceFacts:
        return ServiceFacts(self.run, self.clients, self.max_clients)

    def _make_room(self) -> bool:
        """Close idle connections that hold a descriptor; True if descriptors will be free in a moment."""
        places = self._resources.places
        for connection in places.in_the_way(asyncio.get_running_loop().time()):
            connection.drop("no descriptors")
        return len(self._tasks) > len(places.clients)  # some have only just been accepted

    def _report_error(self, error: BaseException | None) -> None:
        reason = getattr(error, "strerror", None) or type(error).__name__
        self._resources.events.emit(Name.CONTROL_HINDERED, str(reason), clients=self.clients, error=redact(str(error)))

    async def _finish_connections(self) -> None:
        connections = self._resources.places.everybody
        if connections:
            await asyncio.gather(
                *(connection.finish(CLOSE_GRACE) for connection in connections), return_exceptions=True
            )

    # -- forks --

    def _after_fork(self) -> None:
        """In a forked child of the host: let go of our sockets, else clients would never see the parent's end.

        Each number is pointed at /dev/null rather than closed, so that what still owns it closes nothing else (C13).
        """
        if self.http is not None:
            self.http.after_fork()
        descriptors = [connection.descriptor for connection in self._resources.places.everybody]
        if self._claim is not None:
            descriptors += [*self._claim.descriptors, *self._listener.descriptors]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in descriptors:
            if descriptor >= 0:
                os.dup2(null, descriptor, inheritable=False)
        os.close(null)


def _after_fork_of_all() -> None:
    for service in tuple(_living):
        service._after_fork()


os.register_at_fork(after_in_child=_after_fork_of_all)


def _http_listener(supervisor: Supervisor, port: int) -> HttpListener:
    from ..telemetry.http_listener import HttpListener  # at first need: most services have none

    return HttpListener(supervisor, port)


def _path(path: str | os.PathLike[str] | None, name: str) -> Path:
    if path is None:
        return run_files.socket_path(name)
    own = run_files.checked_path(Path(path))
    run_folders.private_directory(own.parent)
    return own
