"""Unit: what workers send and nobody has taken yet is bounded: unfinished frames wait or go."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from dspex.pools.frame_intake import PATIENCE, ROOM, SMALL, FrameIntake
from dspex.pools.worker import Worker
from dspex_worker.wire import FRAME_LIMIT

MIB = 1024 * 1024
ASK = {"name": "tool", "arguments": {}}


class Readers:
    """An intake of workers that are only names, and who of them is paused."""

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.intake = FrameIntake(
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
            readers.intake.remove(cast("Worker", name), now)
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
