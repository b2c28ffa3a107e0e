"""`Evaluation`: the rows and the score of a program on examples. Immutable; any thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from ...errors import InvalidInput
from ..scores.confidence import ConfidenceInterval, interval_of_mean
from ..scores.paired_comparison import PairedComparison
from .evaluation_row import EvaluationRow, Usage, same_example
from .evaluation_table import as_frame, as_html


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A program's score on a data set, in percent, with each row in the data set's order.

    An evaluation that was ended early (`is_complete` is False: the `partial` of an error) has the rows that were done,
    and the score of those. `usage` and `cost_usd` are of everything that was asked meanwhile, a metric that asks a
    language model included; `cost_usd` is None where a price is unknown.
    """

    rows: Sequence[EvaluationRow]
    total: int  # examples that there were
    metric: str
    seconds: float
    usage: Usage = field(default_factory=dict)
    cost_usd: float | None = 0.0

    @property
    def score(self) -> float:
        """The mean of the rows' scores in percent, rounded as DSPy rounds it; 0.0 without a row."""
        return round(100 * fmean(self.scores), 2) if self.rows else 0.0

    @property
    def scores(self) -> list[float]:
        """The rows' scores, most often 0 to 1."""
        return [row.score for row in self.rows]

    @property
    def errors(self) -> tuple[EvaluationRow, ...]:
        """The rows that have an error."""
        return tuple(row for row in self.rows if row.error is not None)

    @property
    def is_complete(self) -> bool:
        """Whether every example has its row."""
        return len(self.rows) == self.total

    def confidence_interval(self, level: float = 0.95) -> ConfidenceInterval:
        """Return the range, in percent, that holds the score on endless such examples: `low, high = ...`.

        Wilson's score interval where every score is 0 or 1, else the percentile bootstrap with a fixed seed (2,000
        resamples), and the normal approximation for more than 1,000 rows.

        Raises:
            InvalidInput: there is no row, or no such level.
        """
        return interval_of_mean(self.scores, level, scale=100)

    def compare(self, other: Evaluation, level: float = 0.95) -> PairedComparison:
        """Return how much better this one is than the other, on the same examples, row by row.

        Raises:
            InvalidInput: the other is of other examples, or no row is in both.
        """
        if not isinstance(other, Evaluation):
            raise InvalidInput(f"An Evaluation is compared with another, not with {other!r}.", field="other")
        mine, theirs = ({row.index: row for row in one.rows} for one in (self, other))
        shared = [index for index in mine if index in theirs]
        if self.total != other.total or not all(same_example(mine[at].example, theirs[at].example) for at in shared):
            raise InvalidInput(
                f"The evaluations are of other examples ({self.total} and {other.total} of them), so their rows cannot "
                f"be paired: evaluate both programs on one data set, in one order.",
                field="other",
            )
        return PairedComparison.of([(mine[at].score, theirs[at].score) for at in shared], level)

    def to_pandas(self) -> Any:
        """Return the rows as a Any: the example's fields and the prediction's, score, error, seconds and route.

        A field of both is `example_<name>` and `pred_<name>`, as in DSPy's tables.

        Raises:
            MissingDependency: pandas is not installed.
        """
        return as_frame(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        low, high = self.confidence_interval() if self.rows else (0.0, 0.0)
        of = "" if self.is_complete else f" of {self.total}"
        failed = f", {len(self.errors)} failed" if self.errors else ""
        between = f" ({low:.1f} to {high:.1f})" if self.rows else ""
        return f"<evaluation: {self.metric} {self.score}{between}, {len(self.rows)}{of} rows{failed}>"

    def _repr_html_(self) -> str:
        return as_html(repr(self)[1:-1], self.rows)
