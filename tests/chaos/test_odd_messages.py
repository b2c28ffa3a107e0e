"""Chaos: 400 valid frames with odd contents; more with `python -m tests.support.chaos.odd_messages`."""

from __future__ import annotations

from tests.support.chaos.odd_messages import MIB, OddWords


def test_odd_words_cost_the_workers_that_say_them_and_nobody_else(no_leaks: None) -> None:
    """Chaos: every kind of message, spoiled: callers get DSPex's errors, the good pool answers, memory is bounded."""
    run = OddWords(7, frames=400)
    run.run()
    assert sum(run.outcomes.values()) == run.frames == 400
    assert run.outcomes["ProtocolError"] > 100, f"hardly anything was odd: {run.outcomes}"
    assert run.outcomes["answered"] > 5, f"nothing was taken: {run.outcomes}"
    assert run.good > 50
    assert run.grown < 128 * MIB
