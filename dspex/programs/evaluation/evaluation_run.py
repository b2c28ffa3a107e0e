"""Run an evaluation: rows side by side on one event loop, each asked and scored; what is done is kept in any case.

`EvaluationRun` is used once, by one task. A row's error is the row's. What ends the whole carries the rows that were
done as its `partial`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ...errors import (
    BudgetExceeded,
    CallTimeout,
    DspexError,
    EvaluationFailed,
    ForkedSupervisor,
    PoolClosed,
    TooManyToolsLeft,
)
from ...lm.usage import Account
from ...services.metric_limit import METRIC_TIMEOUT, MetricLimit
from ...services.metric_runner import UnusableMetric
from ...services.user_threads import UserThreads
from ..examples.devset import DevsetRow
from .evaluated_program import Evaluated
from .evaluation import Evaluation
from .evaluation_row import EvaluationRow
from .scorers import Scored, Scorer

LATE_S = 5.0  # that an evaluation has to end after its time
Report = Callable[[dict[str, Any]], object]
_FATAL = (BudgetExceeded, PoolClosed, ForkedSupervisor, UnusableMetric, TooManyToolsLeft)  # others would meet it too


@dataclass
class EvaluationRun:
    """One evaluation: its rows, and how many at a time; `max_errors` failed rows end it, or `timeout` seconds."""

    subject: Evaluated
    scorer: Scorer
    devset: Sequence[DevsetRow]
    at_once: int
    max_errors: int | None = None
    timeout: float | None = None
    metric_timeout: float = METRIC_TIMEOUT
    done: dict[int, EvaluationRow] = field(default_factory=dict)
    account: Account = field(default_factory=lambda: Account("evaluation"))
    began: float = field(default_factory=time.monotonic)
    failed: int = 0
    scored: float = 0.0  # the sum of the rows' scores

    async def run(self, report: Report) -> Evaluation:
        """Return the evaluation; `report` is called with each row that is done.

        Raises:
            EvaluationFailed: no row could be scored, or `max_errors` failed.
            CallTimeout: `timeout` seconds passed.
            BudgetExceeded, PoolClosed, UnusableMetric: no further row could be answered or scored.
        """
        threads = UserThreads(self.at_once)
        waiting = iter(range(len(self.devset)))
        with self.account:
            tasks = [asyncio.create_task(self._serve(waiting, threads, report)) for _ in range(self.at_once)]
            limit = asyncio.timeout(self.timeout)
            try:
                async with limit:
                    await _first_error(tasks)
            except BaseException as error:  # also a cancelled task: it carries the rows that are done
                raise self.ended(self.timed_out() if limit.expired() else error) from error.__cause__
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                threads.stop()
                self.scorer.stop()
        self._require_score()
        return self.partial()

    def partial(self) -> Evaluation:
        """Return what is done so far."""
        rows = tuple(self.done[at] for at in sorted(self.done))
        seconds, usage = time.monotonic() - self.began, self.account.stats()["models"]
        return Evaluation(rows, len(self.devset), self.scorer.name, seconds, usage, self.account.cost)

    def left(self) -> float | None:
        """Return the seconds until it should have ended long ago; None is no limit."""
        return None if self.timeout is None else max(0.0, self.began + self.timeout + LATE_S - time.monotonic())

    def timed_out(self) -> CallTimeout:
        """Return the error of an evaluation that takes longer than its `timeout`."""
        return CallTimeout(self.subject.pool, "evaluate", timeout=self.timeout or 0.0, phase="running")

    def ended(self, error: BaseException) -> BaseException:
        """Return the error with what was done as its `partial`."""
        if getattr(error, "partial", None) is None:
            cast("Any", error).partial = self.partial()
        return error

    # ============================================================================================================

    async def _serve(self, waiting: Iterator[int], threads: UserThreads, report: Report) -> None:
        for at in waiting:
            row = self.done[at] = await self._row(at, threads)
            self.scored += row.score
            self.failed += row.error is not None
            report(self._progress(row))
            if self.max_errors is not None and row.error is not None and self.failed >= max(1, self.max_errors):
                raise self._failed(f"{self.failed} rows failed, and max_errors is {self.max_errors}")

    async def _row(self, at: int, threads: UserThreads) -> EvaluationRow:
        row, began = self.devset[at], time.monotonic()
        with Account("row") as account:
            try:
                prediction = await self.subject.ask(row, threads)
            except Exception as error:  # whatever a program raises is its row's error
                return self._failed_row(at, error, None, time.monotonic() - began, account)
        seconds = time.monotonic() - began
        try:
            score, feedback = await self._scored(at, prediction)
        except Exception as error:  # whatever a metric raises is its row's error
            return self._failed_row(at, error, prediction, seconds, account)
        usage, route = account.stats()["models"], str(getattr(prediction, "route", "") or "")
        return EvaluationRow(at, row.example, prediction, score, None, seconds, usage, route, feedback)

    async def _scored(self, at: int, prediction: Any) -> Scored:
        """Return a prediction's score.

        Raises:
            MetricTimeout: the metric takes too long; it is left alone.
        """
        limit = MetricLimit(self.scorer.name, f"devset[{at}]", self.metric_timeout, self.subject.pool)
        return await self.scorer.score(self.devset[at].example, prediction, limit)

    def _failed_row(
        self, at: int, error: Exception, prediction: Any, seconds: float, account: Account
    ) -> EvaluationRow:
        """Return the row of an error, unless that ends the whole."""
        is_ours = isinstance(error, DspexError)
        if isinstance(error, _FATAL) or (isinstance(error, MemoryError) and not is_ours):
            raise error
        usage, route = account.stats()["models"], str(getattr(prediction, "route", "") or "")
        return EvaluationRow(at, self.devset[at].example, prediction, 0.0, error, seconds, usage, route)

    def _progress(self, row: EvaluationRow) -> dict[str, Any]:
        done = len(self.done)
        score = round(100 * self.scored / done, 2)
        return {"done": done, "total": len(self.devset), "score": score, "errors": self.failed, "row": row}

    def _require_score(self) -> None:
        """Require that one row was scored.

        Raises:
            EvaluationFailed: none was; 0.0 would look like a result.
        """
        if self.failed < len(self.done):
            return
        unscored = [row for row in self.done.values() if row.prediction is not None]
        if len(unscored) == len(self.done):
            raise self._failed(f"the metric failed on all {len(self.done)} rows")
        if unscored:
            raise self._failed(
                f"no row could be scored: the program failed on {len(self.done) - len(unscored)}, the metric on the "
                f"other {len(unscored)}"
            )
        raise self._failed(f"the program failed on all {len(self.done)} rows")

    def _failed(self, why: str) -> EvaluationFailed:
        first = self.done[min(at for at, row in self.done.items() if row.error is not None)].error
        error = EvaluationFailed(
            f"The evaluation by the metric {self.scorer.name} gave no score: {why}. The first error was "
            f"{type(first).__name__}: {first}",
            metric=self.scorer.name,
            failed=self.failed,
            partial=self.partial(),
        )
        error.__cause__ = first
        return error


async def _first_error(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait until all have ended, or raise the first error."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
