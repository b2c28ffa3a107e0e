"""Whether a quantity grows: least squares through samples, and the 95 % bound of the slope. Pure.

Samples taken each second depend on each other (what was allocated stays for a while), so a line through all of them
would look surer than it is. They are averaged over blocks first, at most `BLOCKS` of them, and the line goes through
those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, fmean

BLOCKS = 30
FEWEST = 4


@dataclass(frozen=True, slots=True)
class Slope:
    """`per_s` ± `bound`, in the quantity's unit per second; the true slope is within with 95 % confidence."""

    mean: float
    per_s: float
    bound: float

    def grows_faster_than(self, limit: float) -> bool:
        """Whether the samples prove a slope above `limit`."""
        return self.per_s - self.bound > limit


def slope(times: Sequence[float], values: Sequence[float]) -> Slope:
    """Give the line through the samples.

    Raises:
        ValueError: fewer than four samples.
    """
    if len(values) < FEWEST:
        raise ValueError(f"{len(values)} samples are too few for a slope")
    xs, ys = _blocks(times), _blocks(values)
    x_mean, y_mean = fmean(xs), fmean(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    per_s = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - y_mean - per_s * (x - x_mean)) ** 2 for x, y in zip(xs, ys, strict=True))
    freedom = len(xs) - 2
    return Slope(y_mean, per_s, student(freedom) * sqrt(rest / freedom / spread))


def student(freedom: int) -> float:
    """Give the 97.5 % quantile of Student's t, by its expansion around the normal one (Abramowitz 26.7.5)."""
    z = NormalDist().inv_cdf(0.975)
    n = freedom
    terms = (
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
    )
    return z + sum(terms)


def _blocks(values: Sequence[float]) -> list[float]:
    count = min(BLOCKS, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [fmean(values[a:b]) for a, b in pairwise(edges)]
