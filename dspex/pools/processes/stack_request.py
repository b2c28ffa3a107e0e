"""Ask a worker for its Python stacks, and read them. Any thread; it waits for nothing by itself.

The answer comes into a file in memory that is opened here through /proc. A worker that works answers a message, and
marks the end. One that has not done so is sent a signal (`dspex_worker.stack_dump`): its handler answers without the
GIL, and the kernel is asked whether it still runs, for its thread blocks the signal meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from dspex_worker import stack_dump

ANSWERS = 2.0  # seconds that a worker has to answer the message: with many busy threads the GIL comes round slowly
PATIENCE = 1.0  # seconds that it has to answer the signal after that
SETTLED = 0.1  # seconds without more, where the kernel does not say whether the handler runs
STACKS_MOST = 256 * 1024  # bytes that are read


class StackRequest:
    """One look at a worker's stacks, which begins when it is made: `look` again and again until that is True."""

    def __init__(self, pid: int, descriptor: int, *, number: int, asks: bool, signal: Callable[[], None]) -> None:
        """Open the worker's file. `signal` sends the signal; without `asks` nobody reads messages there yet.

        Raises:
            OSError: it cannot be opened; `strerror` says why.
        """
        self._file = -1
        self._lock = threading.Lock()  # several may look at once
        self._pid = pid
        self._end = stack_dump.end(number)
        self._signal = signal
        self._signal_at = monotonic() + (ANSWERS if asks else 0.0)
        self._due = self._signal_at + PATIENCE
        self._is_signaled = False
        self._before: set[str] | None = None  # the threads that blocked the signal before it was sent
        self._size = 0
        self._grown_at = 0.0
        self.is_done = False
        self.text = ""
        self.problem = ""
        self._file = _open(pid, descriptor)
        os.ftruncate(self._file, 0)

    def look(self) -> bool:
        """Return whether it is over: `text` has what came, and `problem` says what is wrong with that."""
        with self._lock:
            if not self.is_done:
                self._look(monotonic())
            return self.is_done

    def close(self) -> None:
        """Close the file; may be called twice."""
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    # ================================================================================================================

    def _look(self, now: float) -> None:
        size = os.fstat(self._file).st_size
        if size != self._size:
            self._size, self._grown_at = size, now
        stacks = size - len(self._end)
        if stacks >= 0 and os.pread(self._file, len(self._end), stacks) == self._end:
            self._finish(stacks)
        elif now >= self._due or (self._is_signaled and size and self._has_ended(now)):
            self._finish(size)
        elif now >= self._signal_at and not self._is_signaled:
            self._send_signal()

    def _send_signal(self) -> None:
        if not _has_signal(Path(f"/proc/{self._pid}/status"), "SigCgt"):  # it would end the process
            self.problem = "it does not answer, and its code has taken the signal's handler away"
            self._finish(0)
            return
        self._is_signaled = True
        self._before = _blocking(self._pid)
        os.ftruncate(self._file, 0)
        self._signal()

    def _has_ended(self, now: float) -> bool:
        if self._before is None or _has_signal(Path(f"/proc/{self._pid}/status"), "ShdPnd"):
            return now - self._grown_at >= SETTLED
        return not (_blocking(self._pid) or set()) - self._before

    def _finish(self, size: int) -> None:
        data = os.pread(self._file, min(size, STACKS_MOST), 0) if size > 0 else b""
        self.text = data.decode("utf-8", "replace")
        if not data:
            after = f"it did not answer within {ANSWERS + PATIENCE:g} s"
            self.problem = f"{self.problem or after}: {_kernel_says(self._pid)}"
        elif size > STACKS_MOST:
            self.problem = f"these are the first {STACKS_MOST:,} of {size:,} bytes"
        os.ftruncate(self._file, 0)
        self.is_done = True
        self.close()

    def __del__(self) -> None:
        self.close()


def _open(pid: int, descriptor: int) -> int:
    """Return the worker's file, opened here; anything else under that number is refused."""
    opened = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not str(Path(f"/proc/self/fd/{opened}").readlink()).startswith(f"/memfd:{stack_dump.FILE}"):
        os.close(opened)
        raise OSError(0, "its code has closed the file for them")
    return opened


def _blocking(pid: int) -> set[str] | None:
    """Return the process's threads that block the signal; None where that cannot be seen."""
    found = set()
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if _has_signal(thread / "status", "SigBlk"):
                found.add(thread.name)
    except OSError:
        return None
    return found


def _has_signal(status: Path, name: str) -> bool:
    """Return whether a set of signals in a status file holds ours; False where it has ended."""
    with contextlib.suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return bool(int(line.partition(":")[2], 16) >> (stack_dump.SIGNAL - 1) & 1)
    return False


def _kernel_says(pid: int) -> str:
    """Return what the kernel knows of its main thread, such as "state D (disk sleep), waits in nfs_wait"."""
    said = []
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        said = [f"state {line.partition(':')[2].strip()}" for line in lines if line.startswith("State:")]
    with contextlib.suppress(OSError):
        place = Path(f"/proc/{pid}/wchan").read_text().strip()
        said += [f"waits in {place}"] if place not in ("", "0") else []
    return ", ".join(said) or "the process has ended"
