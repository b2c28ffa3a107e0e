"""The stage of a case, in the host's process: the pool, calls whose ends are timed, and probes.

The main thread uses it. Times are `time.monotonic()`; nothing here waits longer than `PATIENCE`.
"""

from __future__ import annotations

import itertools
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from . import fault_kinds
from .peers import Peer, PeerLimits

PATIENCE = 5.0  # seconds until what has not happened counts as never
START_PATIENCE = 20.0
FOREVER = 120.0  # seconds that failing work would go on; longer than any trial
POLL = 0.001
QUEUED = 20  # calls that wait while the fault happens


class TrialRun:
    """A submitted call, and when it ended. A refusal is an end too."""

    def __init__(self, submit: Callable[[], Future[Any]], announcement: Path | None = None) -> None:
        self._announcement = announcement
        self.ended_at: float | None = None
        self.submitted_at = time.monotonic()
        try:
            self.future = submit()
        except Exception as error:  # what a peer refuses is a result like any other
            self.future = Future()
            self.future.set_exception(error)
        self.future.add_done_callback(self._note_end)

    def wait(self, patience: float = PATIENCE) -> bool:
        """Wait for its end; False if it does not come."""
        until(lambda: self.ended_at is not None, patience)
        return self.ended_at is not None

    def pid(self, patience: float = PATIENCE) -> int | None:
        """Return the process that announced it; None if it ended before it was started, or nobody starts it."""
        until(lambda: self.ended_at is not None or bool(self.pids()), patience)
        return self.pids()[-1] if self.pids() else None

    def pids(self) -> list[int]:
        """Return every process that announced it so far."""
        if self._announcement is None or not self._announcement.exists():
            return []
        return [int(line) for line in self._announcement.read_text().splitlines()]

    def seconds_since(self, moment: float) -> float | None:
        """Return how long after `moment` it ended; None if it did not."""
        return None if self.ended_at is None else self.ended_at - moment

    @property
    def error(self) -> BaseException | None:
        """The error with which it ended; None while it runs."""
        if self.future.cancelled():
            return None
        return self.future.exception() if self.future.done() else None

    @property
    def outcome(self) -> str:
        """The name of its outcome."""
        if self.future.cancelled():
            return "cancelled"
        if self.ended_at is None:
            return "nothing"
        return type(self.error).__name__ if self.error is not None else "a value"

    def gave(self, value: Any) -> bool:
        return (
            self.future.done() and not self.future.cancelled() and self.error is None and self.future.result() == value
        )

    def _note_end(self, _: Future[Any]) -> None:
        self.ended_at = time.monotonic()


class Bystanders:
    """Harmless calls: one that runs while the fault happens, until it is released, and some that are queued."""

    def __init__(self, stage: Stage) -> None:
        self._gate = stage.gate()
        self._neighbor = stage.announced(gate=self._gate)
        self._pid = self._neighbor.pid()
        self._queued = [stage.submit("echo", n=n) for n in range(QUEUED)]

    def release(self) -> None:
        """Let the neighbor end, and so those come that wait behind it."""
        self._gate.touch()

    def facts(self) -> dict[str, Any]:
        """Wait for all, and say how many did not get their own value."""
        return innocents([(self._neighbor, self._pid), *((run, {"n": n}) for n, run in enumerate(self._queued))])


def innocents(expected: Sequence[tuple[TrialRun, Any]]) -> dict[str, Any]:
    """Wait for calls that have done no harm, and count those that did not get their own value."""
    deadline = time.monotonic() + PATIENCE
    for run, _ in expected:
        run.wait(max(0.0, deadline - time.monotonic()))
    return {"lost": sum(not run.gave(value) for run, value in expected), "innocents": len(expected)}


class Stage:
    """One pool and one folder, for one case."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.peer = peer
        self.folder = folder
        self._numbers = itertools.count()
        self._workers = 0

    def start(self, *, is_warm: bool = True, **limits: Any) -> None:
        """Start the pool; warm: once each of its workers has answered."""
        fault_kinds.module()  # what a host's program has imported before it starts a pool
        wanted = PeerLimits(**limits)
        self._workers = wanted.workers
        self.peer.start(wanted, self.folder)
        if is_warm and self.meet(START_PATIENCE) is None:
            raise RuntimeError("the pool did not start its workers")

    def submit(self, fault: str, timeout: float | None = None, **arguments: Any) -> TrialRun:
        """Submit a call of one of the `faults` bridge's commands."""
        return TrialRun(lambda: self.peer.submit(fault, arguments, timeout))

    def announced(
        self, fault: str = "", *, gate: Path | None = None, timeout: float | None = None, **arguments: Any
    ) -> TrialRun:
        """Submit a call that announces its process, waits for `gate`, and then injects the fault."""
        path = self.folder / f"announced-{next(self._numbers)}"
        return self.announced_at(path, fault, gate=gate, timeout=timeout, **arguments)

    def announced_at(
        self, path: Path, fault: str, *, gate: Path | None = None, timeout: float | None = None, **arguments: Any
    ) -> TrialRun:
        """`announced`, in a given file: two calls with equal arguments are the same call."""
        given = {"path": str(path), "gate": str(gate or ""), "command": fault, "arguments": arguments}
        return TrialRun(lambda: self.peer.submit("announced", given, timeout), path)

    def gate(self) -> Path:
        """Return a path at which nothing is yet."""
        return self.folder / f"gate-{next(self._numbers)}"

    def bystanders(self) -> Bystanders:
        """Submit calls that do no harm."""
        return Bystanders(self)

    def meet(self, patience: float = PATIENCE) -> tuple[float, frozenset[int]] | None:
        """Run as many calls as there are workers at the same time; return when, and in which processes.

        None if that does not come about. A pool may fail a call that it took before it noticed a death: three attempts.
        """
        deadline = time.monotonic() + patience
        for _ in range(3):
            gate = self.gate()
            runs = [self.announced(gate=gate) for _ in range(self._workers)]
            pids = {run.pid(max(0.0, deadline - time.monotonic())) for run in runs}
            met = time.monotonic()
            gate.touch()
            if None not in pids and len(pids) == self._workers:
                for run in runs:
                    run.wait()
                return met, frozenset(pid for pid in pids if pid is not None)
            time.sleep(0.1)
        return None

    def aftermath(self, since: float, watched: TrialWatch | None = None) -> dict[str, Any]:
        """Return when all workers served again, whether the pool is usable, and when the watched work stopped.

        Work has stopped once its process is gone, or runs another call: there is one at a time in each.
        """
        met = self.meet()
        probe = self.submit("echo", n=-1)
        probe.wait()
        facts: dict[str, Any] = {"capacity_s": met[0] - since if met else None, "is_usable": probe.gave({"n": -1})}
        if watched is not None:
            runs_another = met is not None and watched.pid in met[1]
            facts["stopped_s"] = facts["capacity_s"] if runs_another else watched.seconds_since(since)
        return facts


class TrialWatch:
    """Records when a process ends, whoever its parent is."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid
        self._ended_at: float | None = None
        if pid is not None:
            self._pidfd = os.pidfd_open(pid)
            self._thread = threading.Thread(target=self._wait, daemon=True)
            self._thread.start()

    def seconds_since(self, moment: float) -> float | None:
        """Return how long after `moment` it ended; None if it has not."""
        if self.pid is not None:
            self._thread.join(timeout=1.0)
        return None if self._ended_at is None else self._ended_at - moment

    def _wait(self) -> None:
        ends = select.poll()
        ends.register(self._pidfd, select.POLLIN)
        ends.poll()
        self._ended_at = time.monotonic()
        os.close(self._pidfd)


def until(is_so: Callable[[], bool], patience: float) -> bool:
    """Poll every millisecond; False if it is not so in time."""
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


def kill(pid: int, number: int) -> float:
    """Send a signal, and return when."""
    now = time.monotonic()
    os.kill(pid, number)
    return now
