"""Tally how one pool's calls ended, how long they took, and how long they waited. Kept only where somebody asks.

Changed under the pool's lock. Commands are those of the pool's bridge, and outcomes the classes of errors: what else
comes is counted as `OTHER`, so that a tally stays small whatever is called.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..terminal_text import inert_line

if TYPE_CHECKING:
    from .call import Call

OK: Final = "ok"
OTHER: Final = "other"
CANCELLED: Final = "CallCancelled"
COMMANDS_MOST: Final = 100
OUTCOMES_MOST: Final = 50  # of one command
NAME_MOST: Final = 100  # characters of a command's name

# seconds; the last of each counts all
DURATIONS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WAITS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)


@dataclass(slots=True)
class Spread:
    """How often a time was at most each bound, and their sum in seconds; the last count is of what was longer."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    def copy(self) -> Spread:
        return Spread(self.bounds, list(self.counts), self.seconds)


@dataclass(slots=True)
class CommandTally:
    """The calls of one command that have ended: how many by outcome, and how long they took from their making."""

    outcomes: dict[str, int] = field(default_factory=dict)
    durations: Spread = field(default_factory=lambda: Spread(DURATIONS))


class CallTally:
    """The ended calls of one pool, by command, and the waits for a worker of all of them."""

    def __init__(self) -> None:
        self.commands: dict[str, CommandTally] = {}
        self.waits = Spread(WAITS)

    def end(self, call: Call, outcome: str, now: float) -> None:
        """Count a call that has its outcome."""
        tally = self.commands.get(call.command) or self._new(call.command)
        outcomes = tally.outcomes
        if outcome not in outcomes and len(outcomes) >= OUTCOMES_MOST:
            outcome = OTHER
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        tally.durations.add(now - call.made_at)
        if call.sent_at:
            self.waits.add(call.sent_at - call.made_at)

    def copy(self) -> CallTally:
        """Return what it holds now."""
        made = CallTally()
        made.waits = self.waits.copy()
        for name, tally in self.commands.items():
            made.commands[name] = CommandTally(dict(tally.outcomes), tally.durations.copy())
        return made

    def _new(self, command: str) -> CommandTally:
        name = inert_line(command[:NAME_MOST])
        if name not in self.commands and len(self.commands) >= COMMANDS_MOST:
            name = OTHER
        return self.commands.setdefault(name, CommandTally())


def outcome_of(call: Call, *, is_given_up: bool) -> str:
    """Return how a call ended: `OK`, or the class of its error; given up is one that its caller waits for no more."""
    error = call.error
    return type(error).__name__ if error is not None else CANCELLED if is_given_up else OK
