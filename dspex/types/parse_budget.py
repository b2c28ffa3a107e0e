"""Bound the work of reading one answer: a budget that all its readers charge.

Some readers need time that grows with the square of a text's length, or worse: json_repair for a list without commas,
Python's own parser for a long tuple. A model's text is untrusted, so each draws from the budget of its answer, or
refuses what is too long. Steps are counted, not seconds: the same answer is read, or refused, on every machine.
"""

from __future__ import annotations

import contextvars
import time
from typing import Final, NoReturn

CHARS_MOST: Final = 1024 * 1024  # of a text that is read as JSON; the longest answers of today's models are half of it
VALUES_MOST: Final = 256 * 1024  # in a longer text, which may be read all the same: a JSON object of one long prose
LITERAL_CHARS_MOST: Final = 128 * 1024  # Python's parser: 1 s and 150 MB for each MiB, and nothing can interrupt it

# Of json_repair, by the character: damaged answers of real models need 2 or 3, a list without commas a third of its
# length. A step is 0.3 to 1 us.
STEPS_PER_CHAR: Final = 32
STEPS_LEAST: Final = 4096
STEPS_MOST: Final = 1_000_000
CPU_MOST_S: Final = 1.0  # of the thread; for the loops over what was read already, which count no steps
_STEPS_UNWATCHED: Final = 64  # between two looks at the clock

_REMEDY: Final = "Ask for valid JSON (the json adapter, structured_outputs=True) or for a shorter answer."


class TooCostly(ValueError):
    """Reading the text would cost too much; the message holds the limit and the remedy."""


class Paused(Exception):
    """The budget of a first attempt is used up: the caller reads the answer elsewhere, with a whole one.

    No ValueError: nothing that reads may take it for an unreadable text and go on.
    """


class ParseBudget:
    """The steps that are left for one answer. For one thread at a time."""

    __slots__ = ("_is_trial", "_most", "_started_s", "left", "refusal", "watched")

    def __init__(self, chars: int, *, trial_steps: int | None = None) -> None:
        most = min(STEPS_LEAST + STEPS_PER_CHAR * chars, STEPS_MOST)
        self._is_trial = trial_steps is not None and trial_steps < most
        self._most = trial_steps if trial_steps is not None and self._is_trial else most
        self.left = self._most
        self.watched = self.left  # when this many are left, `look` is called
        self.refusal: str | None = None
        self._started_s: float | None = None

    def look(self) -> None:
        """Check that something is left.

        Raises:
            TooCostly: nothing is left.
            Paused: nothing is left of a trial.
        """
        if self.left < 0 or self._is_late():
            if self._is_trial:
                raise Paused
            self.refuse(
                f"repairing its damaged JSON takes over {self._most:,} steps ({STEPS_PER_CHAR} for each character, "
                f"{STEPS_MOST:,} at most) or {CPU_MOST_S:g} s"
            )
        self.watched = max(self.left - _STEPS_UNWATCHED, 0)

    def charge(self, steps: int) -> None:
        """Draw several steps at once.

        Raises:
            TooCostly, Paused: as `look`.
        """
        self.left -= steps
        if self.left <= self.watched:
            self.look()

    def pause_before(self, steps: int) -> None:
        """Pause a trial before work of so many steps, which a whole budget is not charged for.

        Raises:
            Paused: it is a trial, and has less left.
        """
        if self._is_trial and steps > self.left:
            raise Paused

    def refuse(self, why: str, remedy: str = _REMEDY) -> NoReturn:
        """

        Raises:
            TooCostly: always.
        """
        self.refusal = f"{why}. {remedy}"
        raise TooCostly(self.refusal)

    def _is_late(self) -> bool:
        now_s = time.thread_time()  # not the wall's: a busy machine must not refuse what an idle one reads
        if self._started_s is None:
            self._started_s = now_s
        return now_s - self._started_s > CPU_MOST_S


# The budget of the answer that this thread or task reads: a pydantic validator that parses once more draws from it.
_of_answer: Final[contextvars.ContextVar[ParseBudget | None]] = contextvars.ContextVar(
    "dspex_parse_budget", default=None
)
begin = _of_answer.set
end = _of_answer.reset


def budget_for(text: str) -> ParseBudget:
    """Return the budget of the answer that is being read; of this text alone, when it is no part of one."""
    return _of_answer.get() or ParseBudget(len(text))


def require_short(text: str) -> None:
    """Check that the standard parser reads the text in tens of milliseconds.

    Raises:
        TooCostly: it is longer, and holds too many values.
    """
    if len(text) <= CHARS_MOST:
        return
    values = sum(map(text.count, "{[,"))
    if values > VALUES_MOST:
        budget_for(text).refuse(
            f"it has {len(text):,} characters, over {CHARS_MOST:,}, and some {values:,} values, over {VALUES_MOST:,}"
        )


def require_literal(text: str) -> None:
    """Check that the text may be given to Python's parser.

    Raises:
        TooCostly: it is too long.
    """
    if len(text) > LITERAL_CHARS_MOST:
        budget_for(text).refuse(
            f"it is no JSON, and {len(text):,} characters are over the {LITERAL_CHARS_MOST:,} of a Python literal"
        )
