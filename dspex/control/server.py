"""The control service of a running supervisor: a unix socket that only its own user can use.

    service = Service(supervisor, name="web").start()

One daemon thread runs one event loop for all clients: calls are awaited, so a slow call or a slow reader holds up
nobody else. It installs no signal handler and never stops the supervisor by itself, except when a client says `stop`.
It does not write logs, and changes no settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

from ..errors import DspexError, ResourceExhausted
from ..events import Name
from ..lm.redaction import redact
from ..pools.supervisor import Supervisor
from . import claims, process_identity, run_files
from .backlog import Backlog, LargeRequests
from .connection_places import MAX_CLIENTS, ConnectionPlaces
from .event_log import EventLog
from .handlers import Handlers
from .listener import Listener
from .run_files import RunFile
from .server_connection import House, ServerConnection
from .throttled_events import ThrottledEvents
from .warm_stop import Wish, finish_calls, grace_of

FAREWELL = 1.0  # seconds that calls which have just ended get to reach their clients when the service closes

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
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        """`on_stop(grace)` hears a client's wish to stop, and must not block; by default the supervisor is stopped."""
        self.supervisor = supervisor
        self.path = _path(path, name)
        self.run = _new_run(name, self.path, kind)
        self.max_clients = max_clients
        self.events = EventLog()
        self._on_stop = on_stop or self._stop_supervisor
        self._house = House(ConnectionPlaces(max_clients), Backlog(), LargeRequests(), ThrottledEvents(supervisor.emit))
        self._tasks: set[asyncio.Task[None]] = set()
        self._counter = 0
        self._claim: claims.Claim | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._is_serving = threading.Event()
        self._close_lock = threading.Lock()
        self._is_stopping = False
        self._wishes: SimpleQueue[Wish] = SimpleQueue()

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> Service:
        """Claim the socket and answer on it from now on.

        Raises:
            SettingsError: the folder is not private, the path too long, or a living supervisor has it.
            ResourceExhausted: the system has no thread for it.
        """
        self._claim = claims.claim(self.path, self.run)
        self.run = self._claim.run
        self._listener = Listener(
            self._claim.listener, serve=self._begin, report=self._hindered, make_room=self._make_room
        )
        self._unsubscribe = self.supervisor.on_event(self.events.take)
        self._thread = threading.Thread(target=self._run, name="dspex-control", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # "can't start new thread"
            self._give_up()
            raise ResourceExhausted(
                "threads", "the control service", remedy="Raise the limit (`ulimit -u`)."
            ) from error
        self._is_serving.wait()
        _living.add(self)
        return self

    def close(self) -> None:
        """Take no more clients, let replies on their way arrive, and remove the socket. May be called twice."""
        with self._close_lock:
            thread = self._thread
            if thread is None or self.run.pid != os.getpid():
                return
            if self._loop is not None and self._closing is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                    self._loop.call_soon_threadsafe(self._closing.set)
            if thread is threading.current_thread():
                self._listener.end()
            else:
                thread.join(timeout=5 * FAREWELL)
            self._give_up()

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def clients(self) -> int:
        """How many clients are connected now, operators and strangers not counted."""
        return len(self._house.admission.clients)

    def request_stop(self, grace: float | None) -> None:
        """A client wants the supervisor to stop; `grace` as in `Supervisor.stop`."""
        self._on_stop(grace)

    def record_end(self, calls_cut: int) -> None:
        """Leave word of how the stop went to those who wait for it."""
        if self._claim is not None:
            claims.record_end(self._claim, calls_cut)

    # ============================================================================================================

    def _give_up(self) -> None:
        """Remove what was claimed; the lock of a process that exists for this service ends with the process."""
        self._thread = None
        self._unsubscribe()
        self._listener.close()  # its reserve is what the removal below may need
        claims.release(self.path, self.run.token)
        if self.run.kind == "embedded" and self._claim is not None:
            os.close(self._claim.record)
            self._claim = None

    # -- the loop's thread --

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._is_serving.set()  # also when it could not serve: `start` must not hang

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: self._hindered(context.get("exception")))
        self._closing = asyncio.Event()
        self._listener.open()
        self._is_serving.set()
        await self._closing.wait()
        self._listener.end()
        self._house.backlog.close()
        await self._say_farewell()

    def _begin(self, sock: socket.socket, is_on_reserve: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._attend(sock, is_on_reserve))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, sock: socket.socket, is_on_reserve: bool) -> None:
        """Serve one connection to its end."""
        try:
            connection = await self._connection(sock, is_on_reserve)
            try:
                await connection.serve()
            finally:
                self._house.admission.leave(connection)
        except Exception as error:  # one connection's trouble, such as no memory for a moment
            self._hindered(error)
        finally:
            self._listener.replenish()

    async def _connection(self, sock: socket.socket, is_on_reserve: bool) -> ServerConnection:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
        except BaseException:
            sock.close()
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._counter += 1
        connection = ServerConnection(
            reader,
            writer,
            client=f"c{self._counter}-{secrets.token_hex(3)}",
            is_on_reserve=is_on_reserve,
            verbs=Handlers(self),
            house=self._house,
        )
        if (displaced := self._house.admission.arrive(connection)) is not None:
            displaced.dismiss("others came, and this one has said nothing")
        return connection

    def _make_room(self) -> bool:
        """Not even the reserve is enough: those who hold a descriptor to no purpose go, or will in a moment."""
        admission = self._house.admission
        for connection in admission.in_the_way(asyncio.get_running_loop().time()):
            connection.drop("no descriptors")
        return len(self._tasks) > len(admission.clients)  # some have only just been accepted

    def _hindered(self, error: BaseException | None) -> None:
        reason = getattr(error, "strerror", None) or type(error).__name__
        self._house.reports.tell(Name.CONTROL_HINDERED, str(reason), clients=self.clients, error=redact(str(error)))

    async def _say_farewell(self) -> None:
        connections = self._house.admission.everybody
        if connections:
            await asyncio.gather(*(connection.finish(FAREWELL) for connection in connections), return_exceptions=True)

    # -- an embedded service that is told to stop --

    def _stop_supervisor(self, grace: float | None) -> None:
        """End the supervisor, then itself, on a thread of its own; where there is none for it, on the loop's."""
        wish = Wish(grace)
        if self._is_stopping:
            self._wishes.put(wish)
            return
        self._is_stopping = True
        try:
            threading.Thread(target=self._stop, args=(wish,), name="dspex-control-stop", daemon=True).start()
        except RuntimeError as error:  # "can't start new thread"
            self._hindered(error)
            asyncio.get_running_loop().call_later(FAREWELL / 10, self._stop, wish)  # the wish is answered first

    def _stop(self, wish: Wish) -> None:
        with contextlib.suppress(DspexError):
            if self.supervisor.is_running:
                grace = grace_of(self.supervisor, wish.grace)
                self.record_end(finish_calls(self.supervisor, grace, first=wish, next_wish=self._next_wish))
            self.supervisor.stop(grace=0.0)
        self.close()

    def _next_wish(self, seconds: float) -> Wish | None:
        try:
            return self._wishes.get(timeout=seconds)
        except Empty:
            return None

    def _forget_in_child(self) -> None:
        """In a forked child of the host: let go of our sockets, else clients would never see the parent's end.

        Each number is pointed at /dev/null rather than closed, so that what still owns it closes nothing else (C13).
        """
        descriptors = [connection.descriptor for connection in self._house.admission.everybody]
        if self._claim is not None:
            descriptors += [self._claim.record, *self._listener.descriptors]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in descriptors:
            if descriptor >= 0:
                os.dup2(null, descriptor, inheritable=False)
        os.close(null)


def _forget_all_in_child() -> None:
    for service in tuple(_living):
        service._forget_in_child()


os.register_at_fork(after_in_child=_forget_all_in_child)


def _path(path: str | os.PathLike[str] | None, name: str) -> Path:
    if path is None:
        return run_files.socket_path(name)
    own = run_files.checked_path(Path(path))
    run_files.private_directory(own.parent)
    return own


def _new_run(name: str, path: Path, kind: str) -> RunFile:
    pid = os.getpid()
    return RunFile(
        name=name,
        pid=pid,
        start_time=process_identity.start_time_of(pid) or 0,
        namespace=process_identity.namespace_of_pids(),
        socket=str(path),
        version=_version(),
        started_at=time.time(),
        token=secrets.token_hex(16),
        kind=kind,
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dspex")
    except PackageNotFoundError:
        return "0"
