"""Collaboration: the watch reads workers that run, and leaves those alone that rest."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dspex_worker.memory.monitor import LATEST, LONGEST_REST, UNCAPPED, MemoryMonitor
from dspex_worker.memory.procfs import cpu_ns
from dspex_worker.memory.tree_gauge import TreeGauge

MIB = 1024 * 1024
CAP = 200 * MIB
HOARDER = """
import sys
kept = []
for line in sys.stdin:
    kept.append(bytearray(int(line)))
    kept[-1][::4096] = b"x" * len(kept[-1][::4096])
    print("done", flush=True)
"""


class Worker:
    """A process that takes as much memory as it is told, and otherwise waits."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", HOARDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.take(1)

    def take(self, bytes: int) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{bytes}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.end()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids of the trees that were looked at, in order."""
    seen: list[int] = []
    look = TreeGauge.look

    def noted(gauge: TreeGauge) -> int:
        seen.append(gauge.pid)
        return look(gauge)

    monkeypatch.setattr(TreeGauge, "look", noted)
    return seen


def let_rest(watch: MemoryMonitor, looks: list[int]) -> None:
    """Look, whenever it is due, until a look finds nothing to read."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        before = len(looks)
        due = watch.due
        while (now := time.monotonic()) < due:
            time.sleep(due - now)
        watch.look(now)
        if len(looks) == before:
            return
    pytest.fail("it never rested")


@pytest.mark.parametrize(("cap", "interval"), [(CAP, LATEST), (None, UNCAPPED)], ids=["capped", "uncapped"])
def test_a_worker_that_rests_is_not_read(worker: Worker, looks: list[int], cap: int | None, interval: float) -> None:
    """Collaboration: it is asked as often as ever whether it ran, which costs a microsecond."""
    watch = MemoryMonitor(report=lambda *_: None, over=lambda *_: None)
    watched = watch.begin(1, worker.process.pid, cap, None)
    let_rest(watch, looks)
    assert watch.due <= time.monotonic() + interval
    before = len(looks)
    watch.look(watched.rest_until - 0.001)
    assert len(looks) == before
    watch.look(watched.rest_until + interval)  # others may have written into what it keeps open
    assert len(looks) == before + 1
    watch.end(1)


def test_workers_that_rest_far_below_their_cap_are_asked_together(worker: Worker, looks: list[int]) -> None:
    """Collaboration: ten that rest wake the template no more often than one does."""
    watch = MemoryMonitor(report=lambda *_: None, over=lambda *_: None)
    watched = [watch.begin(n, worker.process.pid, 10 * CAP, None) for n in range(3)]
    for n, one in enumerate(watched):
        one.next_look += n * LATEST / 3
    for _ in watched:
        let_rest(watch, looks)
    watch.look(max(one.next_look for one in watched))
    assert len({one.next_look for one in watched}) == 1
    for n in range(3):
        watch.end(n)


def test_a_worker_that_runs_again_is_read_at_once_and_caught(worker: Worker, looks: list[int]) -> None:
    """Collaboration: the first look after it ran sees what it took."""
    over: list[Any] = []
    watch = MemoryMonitor(report=lambda *_: None, over=lambda watched, seen: over.append(seen))
    watch.begin(1, worker.process.pid, CAP, None)
    let_rest(watch, looks)
    assert over == []
    worker.take(CAP)
    watch.look(time.monotonic() + LATEST)
    assert len(over) == 1 and over[0] > CAP
    watch.end(1)


def test_what_it_did_is_told_although_it_rests_right_after(worker: Worker, looks: list[int]) -> None:
    """Collaboration: reports come twice a second at most, and a rest does not swallow the last one."""
    told: list[int] = []
    watch = MemoryMonitor(report=lambda watched, counted: told.append(counted), over=lambda *_: None)
    watch.begin(1, worker.process.pid, CAP, None)
    let_rest(watch, looks)
    worker.take(20 * MIB)
    watch.look(time.monotonic() + LATEST)
    worker.take(20 * MIB)
    let_rest(watch, looks)
    assert told[-1] >= told[0] + 35 * MIB, told
    watch.end(1)


def test_the_cpu_clock_of_another_process_moves_only_while_it_runs(worker: Worker) -> None:
    """Collaboration: counted in nanoseconds, for all its threads; a process that is gone has none."""
    before = cpu_ns(worker.process.pid)
    assert before > 0
    worker.take(MIB)
    assert cpu_ns(worker.process.pid) > before
    worker.process.kill()
    worker.process.wait()
    with pytest.raises(OSError):
        cpu_ns(worker.process.pid)


def test_rests_are_shorter_than_anybody_would_wait() -> None:
    """Unit."""
    assert LATEST < UNCAPPED < LONGEST_REST <= 5.0
