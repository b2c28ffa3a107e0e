"""Ask a worker for its Python stacks, and read them. Any thread; it waits for nothing by itself.

The worker's handler (`dspex_worker.stack_dump`) answers without the GIL, into a file in memory that is opened here
through /proc. Nothing marks the answer's end, so the kernel is asked whether the handler still runs: while it does, its
thread blocks the signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from time import monotonic

from dspex_worker import stack_dump

PATIENCE = 2.0  # seconds that a worker has to answer
SETTLED = 0.1  # seconds without more, where the kernel does not say whether the handler runs
STACKS_MOST = 256 * 1024  # bytes that are read


class StackRequest:
    """One look at a worker's stacks: `send`, then `look` again and again until that is True."""

    def __init__(self, pid: int, descriptor: int) -> None:
        """Open the worker's file.

        Raises:
            OSError: it cannot be opened, or does not listen; `strerror` says why.
        """
        self._file = -1
        self._lock = threading.Lock()  # several may look at once
        self._pid = pid
        self._due = monotonic() + PATIENCE
        self._size = 0
        self._grown_at = monotonic()
        self._file = _open(pid, descriptor)
        self.is_done = False
        self.text = ""
        self.problem = ""
        self._before = _blocking(pid)

    def send(self, pidfd: int) -> None:
        """Send the signal."""
        os.ftruncate(self._file, 0)
        signal.pidfd_send_signal(pidfd, stack_dump.SIGNAL)

    def look(self) -> bool:
        """Return whether it is over: `text` has what came, and `problem` says why nothing did."""
        with self._lock:
            return self.is_done or self._look()

    def close(self) -> None:
        """Close the file; may be called twice."""
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    # ================================================================================================================

    def _look(self) -> bool:
        now, size = monotonic(), os.fstat(self._file).st_size
        if size > self._size:
            self._size, self._grown_at = size, now
        if (size and self._has_ended(now)) or now >= self._due:
            self._end()
        return self.is_done

    def _has_ended(self, now: float) -> bool:
        if self._before is None or _is_pending(self._pid):
            return now - self._grown_at >= SETTLED
        return not (_blocking(self._pid) or set()) - self._before

    def _end(self) -> None:
        data = os.pread(self._file, STACKS_MOST, 0)
        self.text = data.decode("utf-8", "replace")
        if not data:
            self.problem = f"it did not answer within {PATIENCE:g} s: {_kernel_says(self._pid)}"
        elif self._size > STACKS_MOST:
            self.problem = f"these are the first {STACKS_MOST:,} of {self._size:,} bytes"
        os.ftruncate(self._file, 0)
        self.is_done = True
        self.close()

    def __del__(self) -> None:
        self.close()


def _open(pid: int, descriptor: int) -> int:
    """Return the worker's file, opened here; anything else under that number is refused."""
    if not _status_bit(Path(f"/proc/{pid}/status"), "SigCgt"):  # the signal would end it
        raise OSError(0, "its code has taken the signal's handler away, or it does not listen yet")
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
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                if _status_bit(thread / "status", "SigBlk"):
                    found.add(thread.name)
    except OSError:
        return None
    return found


def _is_pending(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return _status_bit(Path(f"/proc/{pid}/status"), "ShdPnd")
    return False


def _status_bit(path: Path, name: str) -> bool:
    """Return whether a set of signals in a status file holds ours."""
    for line in path.read_text().splitlines():
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
