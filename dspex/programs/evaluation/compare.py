"""Compare two programs on the same examples: `compare`, and `acompare` for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ..scores.confidence import interval_of_mean
from ..scores.program_comparison import NAMES, ComparedRow, ProgramComparison
from .evaluate import Metric, aevaluate, evaluate, require_evaluation
from .evaluation import Evaluation
from .evaluation_row import EvaluationRow

if TYPE_CHECKING:
    from ...pools.supervising import Supervising


def compare(
    program: Any,
    other: Any,
    devset: Iterable[Any],
    metric: Metric,
    *,
    level: float = 0.95,
    names: tuple[str, str] = NAMES,
    num_threads: int | None = None,
    max_errors: int | None = None,
    timeout: float | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervising | None = None,
) -> ProgramComparison:
    """Return how two programs do on the same examples, paired row by row; blocks.

    Each is whatever `evaluate` takes: a program, a signature, a module, a pipeline, a function. Both are evaluated, one
    after the other, so it costs what two evaluations cost. The result has each one's score with its confidence
    interval at `level`, the paired difference with its own, and `sentence`, which says it in words with the `names`.

    `timeout` bounds each of the two evaluations, in seconds.

    Raises:
        SettingsError, UnknownName, InvalidInput: one of them cannot be evaluated so; nothing was spent.
        EvaluationFailed, CallTimeout, BudgetExceeded, PoolClosed: as `evaluate`. The `partial` is the Evaluation of the
            program whose turn it was; `compared` is that of the first once it was done.
    """
    rows, options = _prepared(devset, level, names, num_threads, max_errors, timeout, inputs, supervisor)
    for each in (program, other):
        require_evaluation(each, rows, metric, awaits=False, **options)
    first = evaluate(program, rows, metric, **options)
    try:
        second = evaluate(other, rows, metric, **options)
    except BaseException as error:  # also Ctrl-C: it carries what was paid
        raise _with(error, first)  # noqa: B904 - it is the same error
    return compared(first, second, level=level, names=names)


async def acompare(
    program: Any,
    other: Any,
    devset: Iterable[Any],
    metric: Metric,
    *,
    level: float = 0.95,
    names: tuple[str, str] = NAMES,
    num_threads: int | None = None,
    max_errors: int | None = None,
    timeout: float | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervising | None = None,
) -> ProgramComparison:
    """`compare`, awaited on the running loop; cancelling the task cancels the rows that run."""
    rows, options = _prepared(devset, level, names, num_threads, max_errors, timeout, inputs, supervisor)
    for each in (program, other):  # which may start workers
        await asyncio.to_thread(require_evaluation, each, rows, metric, awaits=True, **options)
    first = await aevaluate(program, rows, metric, **options)
    try:
        second = await aevaluate(other, rows, metric, **options)
    except BaseException as error:  # also a cancellation: it carries what was paid
        raise _with(error, first)  # noqa: B904 - it is the same error
    return compared(first, second, level=level, names=names)


def compared(
    first: Evaluation, second: Evaluation, *, level: float = 0.95, names: tuple[str, str] = NAMES
) -> ProgramComparison:
    """Return the comparison of two evaluations of the same examples.

    Raises:
        InvalidInput: no row is in both.
    """
    others = {row.index: row for row in second.rows}
    pairs = [(row, others[row.index]) for row in first.rows if row.index in others]
    costs = (first.cost_usd, second.cost_usd)
    return ProgramComparison.of(
        [_row(mine, theirs) for mine, theirs in pairs],
        first.metric,
        level=level,
        names=names,
        seconds=first.seconds + second.seconds,
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def _row(mine: EvaluationRow, theirs: EvaluationRow) -> ComparedRow:
    return ComparedRow(
        mine.index,
        mine.example,
        mine.prediction,
        theirs.prediction,
        mine.score,
        theirs.score,
        _told(mine.error),
        _told(theirs.error),
    )


def _told(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"


def _prepared(
    devset: Any,
    level: Any,
    names: Any,
    num_threads: int | None,
    max_errors: int | None,
    timeout: float | None,
    inputs: Sequence[str] | None,
    supervisor: Supervising | None,
) -> tuple[Any, dict[str, Any]]:
    """Return the examples, which are gone through twice, and the options of each evaluation.

    Raises:
        InvalidInput: the level or the names cannot be.
    """
    interval_of_mean([0.0], level)
    if not isinstance(names, tuple | list) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"names is {names!r}; it is two texts, such as ('new', 'old').", field="names")
    is_listable = isinstance(devset, Iterable) and not isinstance(devset, str | bytes | Mapping)
    options = {
        "num_threads": num_threads,
        "max_errors": max_errors,
        "timeout": timeout,
        "inputs": inputs,
        "supervisor": supervisor,
    }
    return list(devset) if is_listable else devset, options


def _with(error: BaseException, first: Evaluation) -> BaseException:
    """Return the error with the evaluation that was done before it."""
    error.compared = first  # type: ignore[attr-defined]
    return error
