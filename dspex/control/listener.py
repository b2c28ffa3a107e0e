"""Accept connections where descriptors or memory may run out: no spinning loop, no operator refused.

Some descriptors are kept in reserve from the start. When there are no others, one is given up for each connection, so
that operators are still served; before the last goes too, those who only hold one make room. Where nobody can, the last
takes connections only to refuse them, with the reason. What cannot be accepted at all waits in the kernel's queue while
the loop sleeps. The service's loop; nothing here blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable

from .connection_places import OPERATORS, short_of_descriptors
from .refusals import refusal

RESERVE = OPERATORS + 4  # descriptors
SHARE = 16  # at most one in so many of the process's limit
BURST = 64  # connections in one turn of the loop
PAUSE = 0.05  # seconds of sleep after an accept that failed; doubled up to
LONGEST_PAUSE = 2.0
REFILL = 1.0  # seconds between attempts to have the whole reserve again

_SHORT = (errno.EMFILE, errno.ENFILE)


class Listener:
    """Passes each connection to `serve(sock, is_on_reserve)`; `report(error)` gets each that could not be served."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        serve: Callable[[socket.socket, bool], None],
        report: Callable[[BaseException], None],
        make_room: Callable[[], bool],
    ) -> None:
        """`make_room` says whether descriptors will be free in a moment, because some connections must go."""
        self._sock = sock
        self._serve = serve
        self._report = report
        self._make_room = make_room
        self._wanted = _reserve_size()
        self._reserve: list[int] = []
        self._pause = PAUSE
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._refill()

    def open(self) -> None:
        """Accept from now on, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def listen_on(self, sock: socket.socket) -> None:
        """Accept from another socket from now on, and close the one before once those who wait there are served."""
        self._accept()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self._sock = sock
        self._wake()

    def end(self) -> None:
        """Accept no more; on the loop that `open` was called on. May be called twice."""
        for timer in self._timers.values():
            timer.cancel()
        self._wanted = 0
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def close(self) -> None:
        """Release everything; from any thread, once the loop has ended."""
        self._wanted = 0
        self._sock.close()
        while self._reserve:
            os.close(self._reserve.pop())

    def replenish(self) -> None:
        """A connection has ended: its descriptor may be needed for the reserve."""
        self._refill()
        if len(self._reserve) < self._wanted:
            self._later("refill", REFILL, self.replenish)

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._sock.fileno(), *self._reserve)

    # ============================================================================================================

    def _accept(self) -> None:
        for _ in range(BURST):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except (OSError, MemoryError) as error:
                self._report(error)
                if getattr(error, "errno", None) not in _SHORT or not self._accept_on_reserve():
                    self._sleep()
                    return
            else:
                self._serve_accepted(sock, is_on_reserve=False)

    def _accept_on_reserve(self) -> bool:
        """Return whether a connection was taken, served or refused, with a descriptor of the reserve."""
        if not self._reserve:
            return False
        is_last = len(self._reserve) == 1
        if is_last and self._make_room():
            self._pause = PAUSE
            self._later("refill", PAUSE / 2, self.replenish)
            return False
        os.close(self._reserve.pop())
        try:
            sock, _ = self._sock.accept()
        except OSError:  # none waits any more, or another thread took the descriptor
            self.replenish()
            return False
        if is_last:
            _refuse(sock)
            self.replenish()
        else:
            self._serve_accepted(sock, is_on_reserve=True)
            self._later("refill", REFILL, self.replenish)
        return True

    def _serve_accepted(self, sock: socket.socket, *, is_on_reserve: bool) -> None:
        self._pause = PAUSE
        try:
            sock.setblocking(False)
            self._serve(sock, is_on_reserve)
        except (OSError, MemoryError) as error:
            sock.close()
            self._report(error)

    def _sleep(self) -> None:
        """Leave waiting connections in the kernel's queue for a moment: a loop that polled them at once would spin."""
        self._loop.remove_reader(self._sock.fileno())
        self._later("accept", self._pause, self._wake)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    def _wake(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _refill(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._reserve) < self._wanted:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _later(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(seconds, action)


def _reserve_size() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return RESERVE if soft == resource.RLIM_INFINITY else max(2, min(RESERVE, soft // SHARE))


def _refuse(sock: socket.socket) -> None:
    """Send the reason, if that can be done at once, and close."""
    with contextlib.suppress(OSError), sock:
        sock.setblocking(False)
        sock.send(refusal(short_of_descriptors()))
