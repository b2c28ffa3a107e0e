"""Chaos: the long run in short, and that its books and its slopes would tell if something were wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.chaos.outcomes import Books
from tests.support.chaos.slopes import slope, student
from tests.support.chaos.soak import Soak, report
from tests.support.chaos.traffic import Possible


def test_a_short_soak_keeps_its_books(tmp_path: Path, no_leaks: None) -> None:
    """Chaos: eight seconds of everything at once: each id ends once, nothing runs too often, nothing is left."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # shown if it fails
    soak = Soak(8.0, seed, tmp_path, warm_up=0.0)
    soak.execute()
    lines, data, is_well = report(soak)
    assert is_well, "\n".join(lines)
    assert data["ends"]["answered"] > 500
    assert sum(data["injuries"].values()) > 3
    assert len(soak.times) >= 5


def test_books_find_what_ended_never_or_twice(tmp_path: Path) -> None:
    """unit: an id must end exactly once."""
    books = Books(10, tmp_path / "effects")
    never, once, twice = books.open(), books.open(), books.open()
    for id in (once, twice, twice):
        books.close(id, "echo", "answered")
    assert books.faults() == [f"id {never} ended 0 times", f"id {twice} ended 2 times"]


def test_books_find_what_ran_too_often_or_not_at_all(tmp_path: Path) -> None:
    """unit: once, or twice if it may run again, and at least once if it was answered."""
    effects = tmp_path / "effects"
    books = Books(10, effects)
    ids = [books.open() for _ in range(5)]
    for id in ids:
        books.close(id, "effect", "answered")
    for id in ids[:4]:
        books.expects_effect(id, may_repeat=id == 1)
    effects.write_text("0\n0\n1\n1\n2\n4\n")
    assert books.faults() == [
        "id 0 ran 2 times, at most 1 allowed",
        "id 3 was answered and never ran",
        "id 4 ran 1 times, at most 0 allowed",
    ]
    assert books.executions() == 6


def test_a_slope_has_a_bound_that_holds_the_truth() -> None:
    """unit: 95 of 100 lines through noise hold the true slope; a true growth is proven."""
    held = 0
    for seed in range(200):
        noise = random.Random(seed)
        times = [float(second) for second in range(600)]
        values = [100 + 0.01 * t + noise.gauss(0, 3) for t in times]
        found = slope(times, values)
        held += abs(found.per_s - 0.01) <= found.bound
        assert found.grows_faster_than(0.002)
        assert not found.grows_faster_than(0.02)
    assert 180 <= held <= 199


def test_students_quantile() -> None:
    """unit: the table's values for 28, 10 and 5 degrees of freedom."""
    assert [student(n) for n in (28, 10, 5)] == pytest.approx([2.048, 2.228, 2.571], abs=0.01)


def test_a_durable_list_is_checked_against_every_call_that_may_have_written() -> None:
    """unit: what an answered call returns is one of the possible lists with its value behind, and settles which."""
    state = Possible()
    state.may_have(1)
    state.may_have(2)
    assert state.is_after(3, [2, 3])
    assert not state.is_after(4, [1, 2, 3, 4])
