"""The supervisor's end of one worker's pipes: an ordered outbox for frames, and the worker's output.

Frames are appended to the outbox under the pool's lock; they are written outside it, by whoever gets the write lock
without waiting, so that callers and the engine never race for the pipe and order is dispatch order (C2). A writer that
was interrupted in the middle (a raising signal handler) leaves `torn` set: how much was written is then unknown, and
the worker must be retired (C5). Descriptors are closed by the engine alone, under the write lock (C4).
"""

from __future__ import annotations

import array
import fcntl
import os
import termios
import threading
from collections import deque
from collections.abc import Callable

from ... import forks
from . import pipe_io

WRITE_AT_ONCE = 64 * 1024  # bytes that a caller writes before it leaves the rest to the engine
MOST_FRAMES = 64  # in one write


class Channel:
    """One worker's stdin (written here) and stdout (read by the engine)."""

    def __init__(
        self, stdin: int, stdout: int, want_writable: Callable[[bool], None], torn: Callable[[], None]
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.is_closed = False
        self.enqueued = 0  # bytes that were ever appended
        self._outbox: deque[bytes] = deque()
        self._written = 0  # bytes that the pipe accepted
        self._offset = 0  # of them, those that belong to the outbox's first frame
        self._torn = False
        self._is_appending = False
        self._is_waiting = False  # the pipe is full; the engine goes on when it is not
        self._write_lock = threading.RLock()
        self._want_writable = want_writable
        self._on_torn = torn

    def append(self, frame: bytes) -> int:
        """Add a frame and return where it ends in all that was appended. The pool's lock is held."""
        self._is_appending = True
        self._outbox.append(frame)
        self.enqueued += len(frame)
        self._is_appending = False
        return self.enqueued

    def check_append(self) -> None:
        """Retire the worker if `append` was interrupted: its outbox is uncertain. The pool's lock is held."""
        if self._is_appending:
            self._on_torn()

    def flush(self) -> None:
        """Write what the pipe takes, unless another thread is at it. No lock may be held by the caller.

        A signal handler may raise right after `acquire`, so the release is unconditional, and the lock is one that
        knows its owner.
        """
        is_done = False
        while self._outbox and not is_done and not self._is_waiting:
            try:
                if not self._write_lock.acquire(blocking=False):
                    return  # its holder looks at the outbox again after it lets go
                is_done = self._write(WRITE_AT_ONCE)
            finally:
                try:
                    self._write_lock.release()
                except RuntimeError:
                    pass  # it was another thread's

    def resume(self) -> None:
        """Write on: there is room again, or something was left undone; on the engine's thread only."""
        with self._write_lock:  # waited for: its holder writes 64 KiB at most, and never waits
            if self.is_closed:
                return
            self._is_waiting = False
            self._want_writable(False)
        self.flush()

    @property
    def unwritten(self) -> int:
        """How many of the appended bytes the pipe has not taken yet."""
        return self.enqueued - self._written

    def unread(self) -> int:
        """How many bytes of what was written the worker never read (exact once it is dead)."""
        count = array.array("i", [0])
        fcntl.ioctl(self.stdin, termios.FIONREAD, count)
        return count[0]

    def consumed(self) -> int:
        """How many of the appended bytes the worker has read: a frame that ends beyond cannot have begun (C8)."""
        return self._written - self.unread()

    def close(self) -> None:
        """Close both descriptors; the engine's thread only."""
        with self._write_lock, forks.held_back():
            self.is_closed = True
            os.close(self.stdin)
            os.close(self.stdout)
            self._outbox.clear()

    def _write(self, budget: int) -> bool:
        """Write up to `budget` bytes; True if somebody else has to go on. The write lock is held."""
        while self._outbox and not self.is_closed:
            if self._torn:
                self._on_torn()
                return True
            if budget <= 0:
                self._arm()
                return True
            data = self._next_bytes(budget)
            self._torn = True
            try:
                count = pipe_io.write(self.stdin, data)
            except BlockingIOError:
                self._torn = False
                self._arm()
                return True
            except OSError:  # the worker closed its stdin or is gone: its pidfd says the rest
                self._torn = False
                self._outbox.clear()
                return True
            self._advance(count)
            self._torn = False
            budget -= count
        return self.is_closed

    def _next_bytes(self, budget: int) -> bytes:
        """Return about as many bytes as the budget allows: whole frames together, or a part of a large one."""
        first = self._outbox[0]
        if len(self._outbox) == 1 and not self._offset and len(first) <= budget:
            return first
        if self._offset or len(first) > budget:
            return first[self._offset : self._offset + budget]
        frames, size = [first], len(first)
        for index in range(1, min(MOST_FRAMES, len(self._outbox))):
            frame = self._outbox[index]
            size += len(frame)
            if size > budget:
                break
            frames.append(frame)
        return first if len(frames) == 1 else b"".join(frames)

    def _advance(self, count: int) -> None:
        self._written += count
        self._offset += count
        while self._outbox and self._offset >= len(self._outbox[0]):
            self._offset -= len(self._outbox.popleft())

    def _arm(self) -> None:
        self._want_writable(True)
        self._is_waiting = True
