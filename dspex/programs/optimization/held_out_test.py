"""`HeldOutTest`: score what an optimizer came to, and the baseline, on examples that it never saw."""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import CallTimeout, SettingsError
from ...lm.usage import Account
from ...loop_thread import LoopThread
from ..evaluation.compare import acompare
from ..evaluation.evaluate import require_evaluation
from ..examples.example_jobs import SplitExamples
from ..saving.optimized import Optimized
from ..scores.program_comparison import ProgramComparison
from .checked_optimization import CheckedOptimization

if TYPE_CHECKING:
    from ...types.prediction import S_co

NAMES = ("the optimized program", "the baseline")


class HeldOutTest:
    """One comparison, in the thread of its job; `cancel` from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._comparing: concurrent.futures.Future[ProgramComparison] | None = None
        self._is_cancelled = False

    def compare(
        self, checked: CheckedOptimization[Any], best: Optimized[Any], account: Account, timeout: float
    ) -> ProgramComparison:
        """Return the comparison; blocks. What it asks of models counts in the job's account.

        Raises:
            CallTimeout: `timeout` seconds passed. EvaluationFailed, BudgetExceeded: no further row could be scored.
            concurrent.futures.CancelledError: it was cancelled.
        """
        loop = LoopThread("dspex-held-out-loop")
        found = best.program if best.found is None else best.found
        comparing = acompare(
            found, best.baseline, checked.testset or (), checked.metric, names=NAMES, **_options(checked)
        )
        try:
            with self._lock, account:
                self._comparing = loop.submit(comparing)
                if self._is_cancelled:
                    self._comparing.cancel()
            return self._comparing.result(None if math.isinf(timeout) else timeout)
        except concurrent.futures.TimeoutError:
            raise CallTimeout(checked.pool.name, "evaluate", timeout=timeout, phase="running") from None
        finally:
            loop.stop()

    def cancel(self) -> None:
        """End it; the rows that run are cancelled."""
        with self._lock:
            self._is_cancelled = True
            if self._comparing is not None:
                self._comparing.cancel()


def with_result(
    checked: CheckedOptimization[S_co], testset: Any = None, keep_baseline: bool = True
) -> CheckedOptimization[S_co]:
    """Return the job with what is to become of its result.

    Raises:
        InvalidInput, SettingsError, UnknownName: one of both cannot be.
    """
    if not isinstance(keep_baseline, bool):
        raise SettingsError(f"keep_baseline is {keep_baseline!r}; it is True or False.", key="keep_baseline")
    rows = None if testset is None else _require_testset(checked, testset)
    return replace(checked, keeps_baseline=keep_baseline, testset=rows)


def _require_testset(checked: CheckedOptimization[Any], testset: Any) -> Sequence[Any]:
    """Return the held-out examples as a list.

    Raises:
        InvalidInput, SettingsError, UnknownName: the program cannot be scored on them.
    """
    rows = list(testset) if hasattr(testset, "__iter__") and not hasattr(testset, "keys") else testset
    require_evaluation(
        checked.student, rows, checked.metric, num_threads=None, max_errors=None, timeout=None, awaits=False,
        **_options(checked),
    )  # fmt: skip
    return list(rows)


def plain_testset(testset: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    """Return the held-out examples as a journal holds them; None where they hold Python objects."""
    if testset is None:
        return None
    split = SplitExamples.of(testset)
    return split.plain if split.are_plain else None


def _options(checked: CheckedOptimization[Any]) -> dict[str, Any]:
    return {"inputs": checked.arguments["inputs"], "supervisor": checked.student.supervisor_used}
