"""`ProgramComparison`: two programs on the same examples: each one's score with its interval, and the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from ...errors import InvalidInput
from .confidence import ConfidenceInterval, interval_of_mean
from .paired_comparison import PairedComparison

NAMES = ("the first", "the second")


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """What two programs made of one example. An error is text, and its score 0."""

    index: int
    example: Any
    prediction: Any
    other_prediction: Any
    score: float
    other_score: float
    error: str = ""
    other_error: str = ""


@dataclass(frozen=True)
class ProgramComparison:
    """Two programs' scores in percent on the same examples, and how they differ, row by row.

    `difference` is of the first from the second: positive where the first is better. `cost_usd` is of both together,
    None where a price is unknown.
    """

    rows: Sequence[ComparedRow] = field(repr=False)
    metric: str
    score: float
    interval: ConfidenceInterval
    other_score: float
    other_interval: ConfidenceInterval
    difference: PairedComparison
    names: tuple[str, str] = NAMES
    seconds: float = 0.0
    cost_usd: float | None = 0.0

    @classmethod
    def of(
        cls,
        rows: Sequence[ComparedRow],
        metric: str,
        *,
        level: float = 0.95,
        names: tuple[str, str] = NAMES,
        seconds: float = 0.0,
        cost_usd: float | None = 0.0,
    ) -> ProgramComparison:
        """Return the comparison of these rows.

        Raises:
            InvalidInput: there is no row, or no such level.
        """
        if not rows:
            raise InvalidInput("No row is in both evaluations, so there is nothing to compare.", field="devset")
        ours, theirs = [row.score for row in rows], [row.other_score for row in rows]
        return cls(
            tuple(rows),
            metric,
            round(100 * fmean(ours), 2),
            interval_of_mean(ours, level, scale=100),
            round(100 * fmean(theirs), 2),
            interval_of_mean(theirs, level, scale=100),
            PairedComparison.of(list(zip(ours, theirs, strict=True)), level),
            names,
            seconds,
            cost_usd,
        )

    @property
    def sentence(self) -> str:
        """What was found, in plain words."""
        first, second = self.names
        found, count = self.difference, len(self.rows)
        level = f"{100 * self.interval.level:g} %"
        more = "as much" if not found.difference else f"{abs(found.difference):.1f} points "
        more += "" if not found.difference else "more" if found.difference > 0 else "less"
        said = (
            f"On {_counted(count, 'example')} {first} scores {self.score:.1f} % ({self.interval}) and {second} "
            f"{self.other_score:.1f} % ({self.other_interval}): {more}"
        )
        said += f" ({found.interval}). " if found.difference else ". "
        said += (
            f"{first.capitalize()} is better on {found.wins}, worse on {found.losses} and equal on {found.ties}. "
            f"In brackets: {level} confidence intervals. "
        )
        if found.is_significant:
            return f"{said}So uneven a split is rarely chance (sign test, p = {found.p_value:.3g})."
        return f"{said}That may be chance (sign test, p = {found.p_value:.3g}): more examples would tell."

    @property
    def is_significant(self) -> bool:
        """Whether so uneven a split of wins and losses is rarer than the interval's level allows for."""
        return self.difference.is_significant

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<comparison by {self.metric}: {self.sentence}>"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
