"""`PairedComparison`: two evaluations of the same examples, paired row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ...errors import InvalidInput
from .confidence import ConfidenceInterval, interval_of_mean, sign_test


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """How much better one evaluation is than another: `difference` in percent points, and its confidence `interval`.

    `wins`, `losses` and `ties` count the rows; `p_value` is the sign test's over wins and losses, exact and two-sided
    (McNemar's, where scores are 0 or 1).
    """

    difference: float
    interval: ConfidenceInterval
    wins: int
    losses: int
    ties: int
    p_value: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]], level: float = 0.95) -> PairedComparison:
        """Return the comparison of (this, other) scores.

        Raises:
            InvalidInput: there is no pair.
        """
        if not pairs:
            raise InvalidInput("No row is in both evaluations, so there is nothing to compare.", field="other")
        differences = [mine - theirs for mine, theirs in pairs]
        wins, losses = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
        return cls(
            difference=round(100 * fmean(differences), 2),
            interval=interval_of_mean(differences, level, scale=100, may_be_shares=False),
            wins=wins,
            losses=losses,
            ties=len(pairs) - wins - losses,
            p_value=round(sign_test(wins, losses), 6),
        )

    @property
    def is_significant(self) -> bool:
        """Whether so uneven a split of wins and losses is rarer than the interval's level allows for.

        The interval is not asked: for few rows it is too narrow.
        """
        return self.p_value < 1 - self.interval.level

    def __repr__(self) -> str:
        found = f"{self.wins} better, {self.losses} worse, {self.ties} equal, p = {self.p_value:.3g}"
        return f"<comparison: {self.difference:+.1f} ({self.interval}): {found}>"
