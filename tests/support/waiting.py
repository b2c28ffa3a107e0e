"""Bounded waits for what happens in other processes, and gates that hold calls open without sleeping."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspex.pools.supervisor import Supervisor

PATIENCE = 15.0  # seconds: far beyond what anything here takes, for machines that are busy
SOON = 10.0  # seconds: what takes milliseconds, told from what waits for a timeout or for an end, on busy machines too


def eventually(holds: Callable[[], Any], *, within: float = PATIENCE, what: str = "") -> Any:
    """Give the first true value of `holds()`; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {within} s: {what or holds}"
        threading.Event().wait(0.003)
    return value


def late(call: Callable[[float], Any], has_begun: Callable[[], Any]) -> None:
    """Call with the first deadline that lets something begin, and not end; on a busy machine that may be a long one."""
    for seconds in (0.3, 1.0, 4.0, 12.0):
        with pytest.raises(TimeoutError):
            call(seconds)
        if has_begun():
            return
    raise AssertionError("nothing began, whatever the deadline")


def is_alive(pid: int) -> bool:
    """Whether the process runs: neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until each thread has stopped: one that is about to may still read what comes."""
    os.kill(pid, signal.SIGSTOP)
    stats = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
    eventually(lambda: all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats), what="it stopped")


def pids(sup: Supervisor) -> list[int]:
    """The pids of the pool's ready workers, by slot."""
    rows = [row for row in sup.stats()["f"]["workers"] if row["phase"] == "ready"]
    return [row["pid"] for row in sorted(rows, key=lambda row: row["worker"])]


def all_ready(sup: Supervisor, size: int) -> list[int]:
    """Wait until `size` workers are ready; gives their pids."""
    return eventually(lambda: len(pids(sup)) == size and pids(sup), what=f"{size} ready workers")


def forkserver_pid(sup: Supervisor) -> int:
    return int(sup.stats()["f"]["reaper"].removeprefix("fork server "))


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    from dspex_worker.memory.procfs import descendants as below

    return below(pid)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def is_readable(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Gate:
    """Calls of `ask` that stay in their worker until `open()`; `inside` counts those that have arrived."""

    def __init__(self, sup: Supervisor, name: str = "gate") -> None:
        self.name = name
        self.arrived: list[str] = []
        self._open = threading.Event()
        sup.register(name, self._hold)

    def open(self) -> None:
        self._open.set()

    @property
    def command(self) -> tuple[str, str, dict[str, Any]]:
        """What to call: the pool, the command, its arguments."""
        return "f", "ask", {"name": self.name, "arguments": {}}

    def wait_for(self, count: int) -> None:
        eventually(lambda: len(self.arrived) >= count, what=f"{count} calls in the gate")

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def _hold(self, request: Any) -> str:
        self.arrived.append(request.worker.name)
        assert self._open.wait(60)
        return str(request.worker.name)


class Caller(threading.Thread):
    """A call made in a thread of its own; `outcome()` is its value or raises its error."""

    def __init__(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        super().__init__(daemon=True)
        self._work = (function, args, options)
        self._value: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.ended_at = 0.0
        self.start()

    def run(self) -> None:
        function, args, options = self._work
        began = time.monotonic()
        try:
            self._value = function(*args, **options)
        except BaseException as error:
            self.error = error
        self.ended_at = time.monotonic()
        self.seconds = self.ended_at - began

    def outcome(self, within: float = PATIENCE) -> Any:
        self.join(within)
        assert not self.is_alive(), f"no outcome within {within} s"
        if self.error is not None:
            raise self.error
        return self._value
