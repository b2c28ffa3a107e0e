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
from types import TracebackType

from ..errors import DspexError, PoolClosed
from ..pools.supervisor import Supervisor
from . import runfiles
from .connection import Connection, refuse
from .eventlog import EventLog
from .runfiles import RunFile
from .verbs import Verbs

MAX_CLIENTS = 64
FAREWELL = 1.0  # seconds that calls which have just ended get to reach their clients when the service closes

_living: weakref.WeakSet[Service] = weakref.WeakSet()


class Service:
    """Answers on the control socket. Usable as a context manager; `start` and `close` may come from any thread."""

    def __init__(
        self,
        supervisor: Supervisor,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str = runfiles.DEFAULT_NAME,
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
        self._connections: set[Connection] = set()
        self._counter = 0
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._is_serving = threading.Event()
        self._close_lock = threading.Lock()

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> Service:
        """Claim the socket and answer on it from now on.

        Raises:
            SettingsError: the folder is not private, the path too long, or a living supervisor has it.
        """
        self._listener = runfiles.claim(self.path, self.run)
        self._unsubscribe = self.supervisor.on_event(self.events.take)
        self._thread = threading.Thread(target=self._run, name="dspex-control", daemon=True)
        self._thread.start()
        self._is_serving.wait()
        _living.add(self)
        return self

    def close(self) -> None:
        """Take no more clients, let replies on their way arrive, and remove the socket. May be called twice."""
        with self._close_lock:
            thread, self._thread = self._thread, None
            if thread is None or self.run.pid != os.getpid():
                return
            if self._loop is not None and self._closing is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                    self._loop.call_soon_threadsafe(self._closing.set)
            if thread is not threading.current_thread():
                thread.join(timeout=5 * FAREWELL)
            self._unsubscribe()
            runfiles.release(self.path, self.run.token)

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def clients(self) -> int:
        """How many are connected now."""
        return len(self._connections)

    def request_stop(self, grace: float | None) -> None:
        """A client wants the supervisor to stop; `grace` as in `Supervisor.stop`."""
        self._on_stop(grace)

    # ============================================================================================================
    # the loop's thread

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._is_serving.set()  # also when it could not serve: `start` must not hang

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        listener = self._listener
        if listener is None:
            raise PoolClosed("The control service was closed before it began.")
        server = await asyncio.start_unix_server(self._on_client, sock=listener)
        self._is_serving.set()
        await self._closing.wait()
        server.close()
        await self._say_farewell()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self.max_clients:
            await refuse(writer, f"it has {self.max_clients} clients already, its limit; close one and try again")
            return
        self._counter += 1
        connection = Connection(reader, writer, client=f"c{self._counter}-{secrets.token_hex(3)}", verbs=Verbs(self))
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    async def _say_farewell(self) -> None:
        connections = tuple(self._connections)
        if connections:
            await asyncio.gather(*(connection.finish(FAREWELL) for connection in connections), return_exceptions=True)

    def _stop_supervisor(self, grace: float | None) -> None:
        """What an embedded service does when told to stop: end the supervisor, then itself, on a thread of its own."""

        def stop() -> None:
            with contextlib.suppress(DspexError):
                self.supervisor.stop(grace)
            self.close()

        threading.Thread(target=stop, name="dspex-control-stop", daemon=True).start()

    def _forget_in_child(self) -> None:
        """In a forked child of the host: let go of our sockets, else clients would never see the parent's end.

        Each number is pointed at /dev/null rather than closed, so that what still owns it closes nothing else (C13).
        """
        descriptors = [connection.descriptor for connection in self._connections]
        if self._listener is not None:
            descriptors.append(self._listener.fileno())
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
        return runfiles.socket_path(name)
    own = runfiles.checked_path(Path(path))
    runfiles.private_directory(own.parent)
    return own


def _new_run(name: str, path: Path, kind: str) -> RunFile:
    pid = os.getpid()
    return RunFile(
        name=name,
        pid=pid,
        start_time=runfiles.start_time_of(pid) or 0,
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
