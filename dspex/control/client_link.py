"""Keep a client connected: when its connection ends without its own doing, make another.

The thread of the connection that ended tries again and again, later each time, at a random moment of the wait (full
jitter), so that the clients of a service that comes back do not all come at once. Whoever needs a connection waits for
it; what was under way on the old one has failed by then. Any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from ..errors import DspexError, ForkedSupervisor, NotRunning
from .client_connection import ClientConnection

FIRST_WAIT: Final = 0.05  # seconds; doubled up to
LONGEST_WAIT: Final = 2.0
Connect = Callable[[Callable[[], None]], ClientConnection]


class ClientLink:
    """The connection of one client, and those that follow it."""

    def __init__(self, path: Path, connect: Connect, *, reconnects: bool, on_change: Callable[[str], None]) -> None:
        """Connect: `connect(on_end)` makes a connection that calls `on_end` in its thread when it has ended.

        `on_change` is called with "lost" and "reconnected", in that thread.

        Raises:
            NotRunning, TooManyClients, ResourceExhausted, ProtocolError: there is no first connection.
        """
        self.reconnects = reconnects
        self.epoch = 1  # of the connection: sessions that were not shared live in one
        self._path = path
        self._connect = connect
        self._on_change = on_change
        self._lock = threading.Lock()
        self._waiters: list[Future[None]] = []
        self._closing = threading.Event()
        self._pid = os.getpid()
        self.connection = connect(self._lost)

    # -- who needs a connection ----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it is connected now."""
        return self.connection.is_open

    @property
    def is_closed(self) -> bool:
        """Whether it will not be connected any more."""
        return self._closing.is_set() or not (self.reconnects or self.connection.is_open)

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child of the process that connected."""
        return self._pid != os.getpid()

    def ready(self, seconds: float) -> ClientConnection:
        """Return a living connection; wait for it if there will be one.

        Raises:
            NotRunning: there is none, and will be none, or none came within `seconds`.
            ForkedSupervisor: this is a forked child of the process that connected.
        """
        deadline = time.monotonic() + seconds
        while (waiter := self._waiter()) is not None:
            with contextlib.suppress(TimeoutError):
                waiter.result(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
            self._require_time(deadline, seconds)
        return self._usable()

    async def aready(self, seconds: float) -> ClientConnection:
        """`ready`, awaited."""
        deadline = time.monotonic() + seconds
        while (waiter := self._waiter()) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if seconds > 1e9 else max(0.0, deadline - time.monotonic())):
                    await asyncio.wrap_future(waiter)
            self._require_time(deadline, seconds)
        return self._usable()

    def check_own_process(self) -> None:
        """Raise ForkedSupervisor in a forked child of the process that connected."""
        if self.is_forked:
            raise ForkedSupervisor(
                f"This client belongs to process {self._pid}; process {os.getpid()} was forked from it and must "
                f"connect by itself: call dspex.connect() there."
            )

    def close(self) -> None:
        """End the connection for good, also one that is being made; requests under way fail."""
        if self.is_forked:
            return
        self._closing.set()
        self.connection.close()
        self._wake()

    # ============================================================================================================

    def _waiter(self) -> Future[None] | None:
        """Return what tells that there is a connection, or will be none; None if that is so already."""
        self.check_own_process()
        with self._lock:
            if self.connection.is_open or self.is_closed:
                return None
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            return waiter

    def _usable(self) -> ClientConnection:
        connection = self.connection
        connection.check_usable()
        return connection

    def _require_time(self, deadline: float, seconds: float) -> None:
        if time.monotonic() >= deadline and not self.connection.is_open and not self.is_closed:
            raise NotRunning(
                str(self._path),
                f"the connection was lost, and the service did not come back within {seconds:g} s",
                remedy="This client connects by itself once it is back (`dspex start`).",
            )

    def _lost(self) -> None:
        """In the thread of the connection that has ended: say so, and make another."""
        if self.is_closed:
            self._wake()
            return
        self._on_change("lost")
        wait = FIRST_WAIT
        while not self._closing.wait(random.uniform(0.0, wait)):
            wait = min(LONGEST_WAIT, 2 * wait)
            try:
                connection = self._connect(self._lost)
            except (DspexError, OSError):  # not yet, or it has no place for us now
                continue
            if self._adopt(connection):
                self._on_change("reconnected")
                self._wake()
            else:
                connection.close()
            return
        self._wake()

    def _adopt(self, connection: ClientConnection) -> bool:
        """Use the connection from now on; False if this client was closed meanwhile."""
        with self._lock:
            if self._closing.is_set():
                return False
            self.connection = connection
            self.epoch += 1
            return True

    def _wake(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            with contextlib.suppress(Exception):  # cancelled by who waited
                waiter.set_result(None)

    def greeting(self) -> dict[str, Any]:
        """Return what the supervisor reported of itself when it was last connected."""
        return dict(self.connection.greeting)
