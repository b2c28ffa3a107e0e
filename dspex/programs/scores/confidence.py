"""Confidence intervals of means. Pure and deterministic: the same scores give the same interval.

Wilson's score interval where every score is 0 or 1 (E. B. Wilson, 1927; it stays within 0 and 1 and holds its level for
few rows, as the usual one does not). Otherwise the percentile bootstrap, with a seed of its own; for many rows, where
both agree, the normal approximation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Literal

from ...errors import InvalidInput

Method = Literal["wilson", "bootstrap", "normal"]
RESAMPLES = 2000
BOOTSTRAP_MOST = 1000  # scores; of more than these the mean is as good as normal
_SEED = 0


@dataclass(frozen=True, slots=True)
class ConfidenceInterval:
    """A range that holds the true mean at `level`; unpacks as `low, high`. `method` says how it was made."""

    low: float
    high: float
    level: float
    method: Method

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))

    def __getitem__(self, at: int) -> float:
        return (self.low, self.high)[at]

    def __len__(self) -> int:
        return 2

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:.1f} to {self.high:.1f}"


def interval_of_mean(
    scores: Sequence[float], level: float, *, scale: float = 1.0, may_be_shares: bool = True
) -> ConfidenceInterval:
    """Return the interval of the scores' mean, times `scale` (100 for percent); differences are no shares.

    Raises:
        InvalidInput: there is no score, or the level is not between 0 and 1.
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise InvalidInput(f"level is {level!r}; it is a number between 0 and 1, such as 0.95.", field="level")
    if not scores:
        raise InvalidInput("There is no row, so there is no interval.", field="rows")
    method, (low, high) = _interval(scores, level, may_be_shares)
    return ConfidenceInterval(round(low * scale, 4), round(high * scale, 4), level, method)


def sign_test(wins: int, losses: int) -> float:
    """Return the chance that as uneven a split of wins and losses, or more so, comes of two equals (two-sided)."""
    if wins + losses > 1000:  # beyond exact binomials of a reasonable size
        z = max(0.0, abs(wins - losses) - 1) / sqrt(wins + losses)
        return min(1.0, 2 * (1 - NormalDist().cdf(z)))
    return min(1.0, 2 * _at_least(max(wins, losses), wins + losses))


def _interval(scores: Sequence[float], level: float, may_be_shares: bool) -> tuple[Method, tuple[float, float]]:
    if may_be_shares and all(score in (0, 1) for score in scores):
        return "wilson", _wilson(sum(scores), len(scores), level)
    if len(scores) <= BOOTSTRAP_MOST:
        return "bootstrap", _bootstrap(scores, level)
    half = NormalDist().inv_cdf(0.5 + level / 2) * stdev(scores) / sqrt(len(scores))
    mean = fmean(scores)
    return "normal", (mean - half, mean + half)


def _wilson(successes: float, count: int, level: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, weight = successes / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z * sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def _bootstrap(scores: Sequence[float], level: float) -> tuple[float, float]:
    chance, count = random.Random(_SEED), len(scores)
    means = sorted(fmean(chance.choices(scores, k=count)) for _ in range(RESAMPLES))
    tail = (1 - level) / 2
    return means[int(tail * (RESAMPLES - 1))], means[round((1 - tail) * (RESAMPLES - 1))]


def _at_least(successes: int, count: int) -> float:
    return float(sum(comb(count, each) for each in range(successes, count + 1)) / 2**count)
