"""The descriptors that the engine waits for, and how other threads wake it."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from io import FileIO

from ...descriptors import above_streams

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
MOST_EVENTS = 256
ONE = (1).to_bytes(8, "little")  # what an eventfd takes; little or big, it is not zero

Handler = Callable[[int], None]


class Poller:
    """An epoll set with a handler for each descriptor. `wake` may be used from any thread, the rest on the engine's."""

    def __init__(self) -> None:
        self._epoll: select.epoll
        self._wakeup: FileIO  # a file object: waking an engine that has ended is an error, not a stranger's descriptor
        self._handlers: dict[int, Handler] = {}

    def open(self) -> None:
        """Make the set.

        Raises:
            OSError: no descriptors are left.
        """
        with above_streams():
            self._epoll = select.epoll()
            self._wakeup = FileIO(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), "r+")
        self.register(self._wakeup.fileno(), self._on_wakeup)

    def close(self) -> None:
        """Close the set. In a forked child it unregisters nothing, for the set is shared."""
        self._epoll.close()
        self._wakeup.close()

    def handle_events(self, patience: float) -> bool:
        """Wait for events and handle them; False if there were none."""
        events = self._epoll.poll(patience, MOST_EVENTS)
        handlers = self._handlers
        for descriptor, event in events:
            if (handler := handlers.get(descriptor)) is not None:
                handler(event)
        return bool(events)

    def wake(self) -> None:
        """End the wait that is under way, or the next."""
        try:
            self._wakeup.write(ONE)
        except (OSError, ValueError):
            pass  # full: it will wake anyway; closed: nobody is left to wake

    def _on_wakeup(self, _: int) -> None:
        self._wakeup.read(len(ONE))

    def register(self, descriptor: int, handler: Handler, events: int = READABLE) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def pause(self, descriptor: int) -> None:
        """Look at the descriptor no more until `resume`, not even for its end."""
        if descriptor in self._handlers:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def resume(self, descriptor: int) -> None:
        """Look at a paused descriptor again."""
        if descriptor in self._handlers:
            self._epoll.register(descriptor, READABLE)

    def set_writable_wanted(self, descriptor: int, wanted: bool) -> None:
        """Listen, or not, for room in a pipe. The caller holds the lock that keeps `descriptor` open."""
        if descriptor in self._handlers:
            self._epoll.modify(descriptor, WRITABLE if wanted else 0)
