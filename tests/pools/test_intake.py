"""Unit and process: what workers send and nobody has taken yet is bounded: unfinished frames, and reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from dspex.events import Event, Name
from dspex.pools import inbox
from dspex.pools.frame_intake import PATIENCE, ROOM, SMALL, Intake
from dspex.pools.worker import Worker
from dspex_worker.wire import FRAME_LIMIT
from tests.pools.conftest import Supervise
from tests.pools.waiting import Caller, all_ready, eventually

ODD = str(Path(__file__).parents[1] / "chaos" / "odd_bridge.py")
ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
ASK = {"name": "tool", "arguments": {}}


class Readers:
    """An intake of workers that are only names, and who of them is paused."""

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.intake = Intake(
            cast("Callable[[Worker], None]", self.paused.add), cast("Callable[[Worker], None]", self.paused.discard)
        )

    def note(self, name: str, size: int, now: float = 0.0, *, is_new: bool = False) -> None:
        self.intake.note(cast("Worker", name), size, now, is_new=is_new)


def test_forty_frames_held_back_by_a_byte_stay_within_the_room() -> None:
    """unit: those that came when there was none wait; who holds the room too long goes; in the end all are done."""
    readers, now = Readers(), 0.0
    sizes = dict.fromkeys((f"w{n}" for n in range(40)), 0)
    gone: list[str] = []
    while len(gone) < 40:
        for name in sizes:
            while name not in readers.paused and name not in gone and sizes[name] < FRAME_LIMIT - 1:
                sizes[name] = min(FRAME_LIMIT - 1, sizes[name] + 64 * 1024)
                readers.note(name, sizes[name], now)
        assert readers.intake.held <= ROOM + FRAME_LIMIT + 40 * (SMALL + 64 * 1024)
        assert sum(sizes[name] for name in sizes if name not in gone) == readers.intake.held
        if not readers.paused:
            break
        now = readers.intake.due
        assert now < 1000
        late = [str(worker) for worker in readers.intake.late(now)]
        assert late
        for name in late:
            gone.append(name)
            readers.intake.forget(cast("Worker", name), now)
    assert len(gone) >= 30 and not readers.paused
    assert readers.intake.held <= ROOM + FRAME_LIMIT


def test_large_frames_of_many_workers_go_through_one_after_the_other() -> None:
    """unit: nobody is late, however many send frames of the largest size."""
    readers = Readers()
    left = dict.fromkeys((f"w{n}" for n in range(40)), FRAME_LIMIT)
    while left:
        moved = False
        for name in list(left):
            if name in readers.paused:
                continue
            moved = True
            left[name] -= 64 * 1024
            readers.note(name, FRAME_LIMIT - left[name] if left[name] else 0)
            if not left[name]:
                del left[name]
        assert moved, "everybody is paused"
        assert readers.intake.held <= ROOM + FRAME_LIMIT + 40 * (SMALL + 64 * 1024)
    assert readers.intake.held == 0 and readers.intake.due == float("inf")


def test_a_small_frame_is_always_read() -> None:
    """unit: the attack of some costs the others nothing."""
    readers = Readers()
    for name in ("a", "b", "c", "d", "e"):
        readers.note(name, FRAME_LIMIT - 1)
    readers.note("good", SMALL)
    assert "good" not in readers.paused and "e" in readers.paused
    assert readers.intake.due == PATIENCE


def test_a_worker_that_sends_frame_after_frame_is_not_the_oldest_for_ever() -> None:
    """unit: what it has pending is of another frame each time."""
    readers = Readers()
    for name in ("a", "b", "c", "d", "e"):
        readers.note(name, FRAME_LIMIT - 1)
    readers.note("a", FRAME_LIMIT - 1, 9.0, is_new=True)
    assert readers.paused == {"a", "e"}
    assert [str(worker) for worker in readers.intake.late(PATIENCE)] == ["b", "c", "d"]


def test_a_frame_that_is_held_back_is_given_up_for_those_that_wait(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: five workers hold large frames back; the sixth's large answer arrives, small ones meanwhile too."""
    from dspex.pools import frame_intake

    monkeypatch.setattr(frame_intake, "ROOM", 4 * 1024 * 1024)
    monkeypatch.setattr(frame_intake, "PATIENCE", 1.0)
    sup = supervise(size=5, concurrency=1, restart_budget=(100, 1.0))
    all_ready(sup, 5)
    held = (3 * 1024 * 1024).to_bytes(4, "big") + b"\xc6" + b"x" * (3 * 1024 * 1024 - 5)
    bad = [Caller(sup.call, "f", "garbage", {"data": held, "seconds": 60.0}, timeout=60.0) for _ in range(4)]
    dispatcher = sup.pool("f")._dispatcher
    pending = lambda: sum(w.buffer.pending for w in tuple(dispatcher.workers.values()))  # noqa: E731
    eventually(lambda: pending() > 4 * 1024 * 1024)
    assert sup.call("f", "echo", {"n": 1}, timeout=20) == {"n": 1}
    assert len(sup.call("f", "payload", {"bytes": 8 * 1024 * 1024}, timeout=60)) == 8 * 1024 * 1024
    assert pending() <= 4 * 1024 * 1024 + 3 * 1024 * 1024 + 5 * (SMALL + 64 * 1024)
    errors = {type(caller.error).__name__ for caller in bad if not caller.is_alive()}
    assert errors == {"ProtocolError"}
    sup.stop(grace=0.0)
    for caller in bad:
        caller.join(20)


def test_reports_that_nobody_takes_are_dropped_and_counted(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: a subscriber hangs, a worker tells events on and on: bounded here, and told afterwards."""
    monkeypatch.setattr(inbox, "REPORTS_MOST", 1024 * 1024)
    sup = supervise(bridge=str(ROOT / "tests" / "worker" / "hostile_bridge.py"), size=1)
    heard: list[Event] = []
    go = threading.Event()

    def slow(event: Event) -> None:
        heard.append(event)
        if event.name is Name.WORKER_REPORTED:
            go.wait(30)

    sup.on_event(slow)
    for _ in range(40):
        sup.call("f", "emit", {"name": "e", "facts": {"text": "x" * 100_000}}, timeout=20)
    go.set()
    assert sup.flush_events(20)
    assert 5 <= len([event for event in heard if event.name is Name.WORKER_REPORTED]) <= 12
    sup.call("f", "emit", {"name": "e", "facts": {}}, timeout=20)
    assert sup.flush_events(20)
    (dropped,) = [event for event in heard if event.name is Name.REPORT_DROPPED]
    assert dropped.facts["count"] >= 28
