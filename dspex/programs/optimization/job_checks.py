"""Check an optimization before anything is paid for, as far as this process can; a worker checks the rest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ... import defaults
from ...errors import InvalidInput, SettingsError, UnknownName
from ...services.metric_job import MetricJob
from ...services.metric_limit import checked_limit
from ...services.metrics import checked_metric
from ...services.services import Services, services_of
from ..calling.program import Program
from ..examples.devset import as_example, declared_inputs, input_names
from ..examples.example_jobs import SplitExamples, require_inputs
from ..factories.given_program import given_program, is_open, known_inputs
from ..factories.program_factories import predictor
from ..options.routing import GENERAL_POOL, NATIVE_MODULES, OPTIMIZER_POOL
from .checked_optimization import CheckedOptimization
from .optimizer_options import LM_OPTIONS, OptimizerName, require_optimizer
from .sent_optimizer_options import SentOptimizerOptions
from .spread_metric import SpreadMetric

if TYPE_CHECKING:
    from ...adapters.given_adapter import AdapterLike
    from ...defaults import LMLike
    from ...lm.record import LM
    from ...pools.supervising import Supervising
    from ..calling.program import S
    from ..factories.program_factories import Asked

Examples = Sequence[Mapping[str, Any]]
Metric = Callable[..., Any] | str | Mapping[str, Any]


def checked_job(
    program: Asked[S],
    trainset: Examples,
    optimizer: OptimizerName = "miprov2",
    options: Mapping[str, Any] | None = None,
    metric: Metric | None = None,
    valset: Examples | None = None,
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervising | None = None,
    session: str | None = None,
    metric_timeout: float | None = None,
    metric_pool: str | None = None,
) -> CheckedOptimization[S]:
    """Return the job, checked as far as this process can.

    Raises:
        UnknownName, SettingsError, InvalidInput: it cannot be.
    """
    lm, prompt_lm, own = _named_otherwise(optimizer, options or {}, lm, prompt_lm)
    require_optimizer(optimizer, own)
    checked_metric(metric)
    limit = checked_limit(metric_timeout)
    student = _student(program, lm, adapter, supervisor)
    _require_pools(student)
    learned, held_out = _listed(trainset, "trainset"), None if valset is None else _listed(valset, "valset")
    names = _named_inputs(student, [*learned, *(held_out or ())], inputs)
    asked_for = None if prompt_lm is None else defaults.as_lm(prompt_lm, student.supervisor)
    services = services_of(student.supervisor_used)
    sent = SentOptimizerOptions.of(own, student, services)
    arguments = {
        **_examples(student, learned, held_out, names, sent.objects),
        **_models(student, asked_for, services),
        "config": dict(student.config_used),
        "rollout_id": student.rollout_id,
        "optimizer": optimizer,
        "options": sent.wire,
    }
    spread = None if metric_pool is None else SpreadMetric(metric, student, metric_pool)
    if spread is not None:
        spread.require()
    told = replace(_metric_job(student, learned, held_out, names), limit_s=limit)
    return CheckedOptimization(student, optimizer, metric, told, arguments, asked_for, session, spread, options=sent)


def _named_otherwise(
    optimizer: Any, options: Mapping[str, Any], lm: LMLike | None, prompt_lm: LMLike | None
) -> tuple[LMLike | None, LMLike | None, dict[str, Any]]:
    """Return the language models and the other options, out of those that DSPy's names give.

    Raises:
        SettingsError: one is given twice, by two names.
    """
    given: dict[str, Any] = {"lm": lm, "prompt_lm": prompt_lm}
    own = {name: value for name, value in options.items() if name not in LM_OPTIONS}
    for name, ours in LM_OPTIONS.items():
        if options.get(name) is None:
            continue
        if given[ours] is not None:
            raise SettingsError(f"{name} of {optimizer} is {ours} by another name: give one of them.", key=name)
        given[ours] = options[name]
    return given["lm"], given["prompt_lm"], own


def _student(
    program: Asked[S], lm: LMLike | None, adapter: AdapterLike | None, supervisor: Supervising | None
) -> Program[S]:
    student: Program[S] = given_program(program, supervisor) or predictor("predict", program)
    given: Any = {"lm": lm, "adapter": adapter, "supervisor": supervisor}
    return student.using(**{name: value for name, value in given.items() if value is not None})


def _require_pools(student: Program) -> None:
    """Check that there is a pool for the optimizer, and one that renders the prompt of what it finds.

    Raises:
        UnknownName: there is none.
    """
    supervisor = student.supervisor_used
    try:
        supervisor.pool(OPTIMIZER_POOL)
    except UnknownName as error:
        advice = (
            f"Optimizers run in a pool of this name: add PoolConfig({OPTIMIZER_POOL!r}, size=1) to the supervisor's "
            f"pools, or [pools.{OPTIMIZER_POOL}] to its settings, and dspex[optimizers] where its workers run."
        )
        raise UnknownName("pool", OPTIMIZER_POOL, error.known, advice=advice) from error
    if student.module in NATIVE_MODULES:
        supervisor.pool(GENERAL_POOL)


def _listed(rows: Any, name: str) -> list[Any]:
    """Return the rows as a list, which is gone through more than once.

    Raises:
        InvalidInput: they are no list of examples.
    """
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise InvalidInput(f"{name} is a list of examples, not a {type(rows).__name__}.", field=name)
    return list(rows)


def _examples(
    student: Program,
    trainset: list[Any],
    valset: list[Any] | None,
    names: Sequence[str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    rows = [*trainset, *(valset or ())]
    require_inputs(rows, student.signature)
    if not trainset:
        raise InvalidInput("optimize needs a trainset with at least one example.", field="trainset")
    if valset is not None and not valset:
        raise InvalidInput("valset is empty: give at least one example, or None to have DSPy choose.", field="valset")
    learned, held_out = SplitExamples.of(trainset), SplitExamples.of(valset or ())
    objects: dict[str, Any] = {}
    if not (learned.are_plain and held_out.are_plain):
        objects |= {"train": learned.objects, "val": held_out.objects}
    carried = student.sent.carried(objects | ({"options": dict(options)} if options else {}))
    return {
        "trainset": learned.plain,
        "valset": None if valset is None else held_out.plain,
        "inputs": list(names),
        "plain": list(dict.fromkeys(name for row in rows for name in row.keys() if name not in names)),  # noqa: SIM118
        **({} if carried is None else {"carried": carried}),
    }


def _named_inputs(student: Program, rows: list[Any], inputs: Sequence[str] | None) -> list[str]:
    """Return the fields that go in: those that are named, else those that DSPy's examples declare, else the known."""
    if (named := input_names(inputs)) is not None:
        return named
    declared = dict.fromkeys(name for row in rows for name in declared_inputs(row) or ())
    return list(declared) or [name for name in known_inputs(student) if any(name in row for row in rows)]


def _metric_job(student: Program, trainset: list[Any], valset: list[Any] | None, names: Sequence[str]) -> MetricJob:
    """Return what a metric of this process gets: the very examples that were given, and values of their types."""
    rows = {"train": trainset, "val": valset or []}
    examples = {title: [as_example(row, names) for row in given] for title, given in rows.items()}
    return MetricJob(examples, None if is_open(student) else student.answered, student.typed, student.packages)


def _models(student: Program, prompt_lm: LM | None, services: Services) -> dict[str, Any]:
    lm = student.lm_used
    return {
        "lm": services.lm_record(lm),
        "prompt_lm": None if prompt_lm is None else services.lm_record(prompt_lm),
        "adapter": student.wire_adapter(lm),
    }
