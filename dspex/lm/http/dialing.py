"""Connect a socket from a thread: several addresses are tried with a short lead for each (RFC 8305).

An address that does not answer costs a quarter of a second, not the whole time; the deadline holds for all together.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Sequence

from .resolver import AddressInfo

LEAD_S = 0.25  # before the next address is tried beside the one that has not answered
_UNDER_WAY = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY, errno.EINTR})
BUSY_PAUSE_S = 0.005  # of a Unix socket whose queue is full


def dial(addresses: Sequence[AddressInfo], deadline: float) -> socket.socket:
    """Return a socket that is connected to the first address that answers.

    Raises:
        TimeoutError: none did in time.
        OSError: all refused.
    """
    race = _Race()
    try:
        for at, address in enumerate(addresses):
            race.begin(address)
            is_last = at == len(addresses) - 1
            lead_end = deadline if is_last else min(deadline, time.monotonic() + LEAD_S)
            won = race.wait(lead_end, all_of_it=is_last)
            if won is not None:
                return won
            if time.monotonic() >= deadline:
                break
        raise race.failure()
    finally:
        race.close()


def dial_local(path: str, deadline: float) -> socket.socket:
    """Return a socket that is connected to a Unix socket; one whose queue is full is tried again.

    Raises:
        TimeoutError: it had no room in time.
        OSError: nobody listens there.
    """
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            return sock
        except BlockingIOError:
            sock.close()
        except BaseException:  # also Ctrl-C: the descriptor would leak
            sock.close()
            raise
        if time.monotonic() + BUSY_PAUSE_S >= deadline:
            raise TimeoutError(f"{path} had no room for another connection")
        time.sleep(BUSY_PAUSE_S)


class _Race:
    """The attempts that are under way, by descriptor."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[socket.socket, AddressInfo]] = {}
        self._poll = select.poll()
        self._failures: list[OSError] = []

    def begin(self, address: AddressInfo) -> None:
        family, kind, protocol, _, place = address
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            self._failures.append(error)
            return
        self._open[sock.fileno()] = (sock, address)
        sock.setblocking(False)
        code = sock.connect_ex(place)
        if code in _UNDER_WAY:
            self._poll.register(sock, select.POLLOUT)
        else:
            self._drop(sock.fileno(), code)

    def wait(self, until: float, *, all_of_it: bool) -> socket.socket | None:
        """Return the winner; None when the time is over or nothing is under way (or, of a lead, one has failed)."""
        while self._open:
            left = until - time.monotonic()
            if left <= 0:
                return None
            failed = len(self._failures)
            for descriptor, _ in self._poll.poll(max(1.0, left * 1e3)):
                sock, _ = self._open[descriptor]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    self._poll.unregister(descriptor)
                    del self._open[descriptor]
                    return sock
                self._poll.unregister(descriptor)
                self._drop(descriptor, code)
            if len(self._failures) > failed and not all_of_it:
                return None
        return None

    def failure(self) -> OSError:
        """Return why none was connected."""
        if self._open or not self._failures:
            return TimeoutError("none of its addresses answered")
        if len({str(each) for each in self._failures}) == 1:
            return self._failures[0]
        numbers = {each.errno for each in self._failures}
        told = f"Multiple exceptions: {', '.join(map(str, self._failures))}"
        return OSError(numbers.pop(), told) if len(numbers) == 1 else OSError(told)

    def close(self) -> None:
        for sock, _ in self._open.values():
            sock.close()

    def _drop(self, descriptor: int, code: int) -> None:
        sock, address = self._open.pop(descriptor)
        sock.close()
        where = address[4][0] if address[4] else "?"
        self._failures.append(OSError(code, f"{os.strerror(code)} ({where}:{address[4][1]})"))
