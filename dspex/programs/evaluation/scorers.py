"""Score predictions in an evaluation: by a function of this process, a built-in metric, or one that workers hold."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

from dspex_worker.user_calls import MetricParameters, feedback_in, name_of

from ...errors import InvalidInput, SettingsError, UnknownName
from ...services.built_in_metrics import BUILT_IN, IN_WORKERS, built_in
from ...services.metric_limit import MetricLimit
from ...services.metric_loop import MetricLoop
from ...services.metric_runner import MetricRunner, UnusableMetric
from ...services.metrics import checked_parameters, checked_score, named_metric
from ...services.sent_types import SentTypes
from ...services.services import services_of
from ..calling.program import Program
from ..examples.devset import DevsetRow, declared_inputs
from ..examples.example_jobs import SplitExamples
from ..factories.given_program import is_open
from ..options.routing import GENERAL_POOL
from .evaluated_program import Evaluated, EvaluatedProgram

if TYPE_CHECKING:
    from ...pools.supervising import Supervising

SCORING_BRIDGES = ("dspy", "mipro")
Scored = tuple[float, str | None]  # the score, and the feedback that the metric gave beside it


class Scorer(Protocol):
    """A metric of an evaluation."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def require(self, rows: Sequence[DevsetRow], subject: Evaluated) -> None:
        """Check what can be checked before anything is paid."""
        ...

    async def score(self, example: Any, prediction: Any, limit: MetricLimit) -> Scored:
        """Return the score of a prediction."""
        ...

    def stop(self) -> None:
        """End what it started."""
        ...


def scorer_of(
    metric: Any,
    subject: Evaluated,
    supervisor: Callable[[], Supervising],
    pool: str | None = None,
    *,
    at_once: int,
    awaits: bool,
) -> Scorer:
    """Return the scorer for a metric; `supervisor` gives the one whose workers score, where these do.

    Raises:
        SettingsError: it is no metric, or cannot be called as one; or `pool` is none that could score by it.
        UnknownName: there is no such built-in metric, or no such pool.
    """
    if pool is not None:
        require_pool(pool, metric, supervisor())
    if callable(metric):
        return FunctionScorer(metric, checked_parameters(metric), at_once, awaits)
    named = named_metric(metric)
    if "import" not in named and named["name"] not in IN_WORKERS:
        return BuiltInScorer(str(named["name"]), built_in(named), named.get("field"))
    if "import" not in named and named["name"] not in BUILT_IN:
        raise UnknownName("metric", str(named["name"]), BUILT_IN)
    return WorkerScorer(named, subject, supervisor(), pool or GENERAL_POOL)


def require_pool(pool: str, metric: Any, supervisor: Supervising) -> None:
    """Check that a pool may score by a metric.

    Raises:
        SettingsError: the metric is a function of this process, or the pool runs another bridge than DSPex's.
        UnknownName: there is no such pool.
    """
    if callable(metric) or "import" not in named_metric(metric):
        raise SettingsError(
            f"A pool scores by a metric that it imports, such as 'mymetrics:f1'; {metric!r} runs where it is called.",
            key="pool",
        )
    if supervisor.pool(pool).config.bridge not in SCORING_BRIDGES:
        raise SettingsError(f"Pool {pool!r} runs no bridge that scores: it needs bridge='dspy'.", key="pool")


@dataclass
class FunctionScorer:
    """A function of this process, plain or asynchronous; called as DSPy's Evaluate calls it, without a trace."""

    metric: Callable[..., Any]
    parameters: MetricParameters
    at_once: int
    awaits: bool  # an asynchronous one, on the running loop; else on a loop of its own, which it may block
    loop: MetricLoop = field(default_factory=MetricLoop)

    @cached_property
    def runner(self) -> MetricRunner:
        return MetricRunner(self.metric, self.loop, self.at_once)

    @property
    def name(self) -> str:
        return name_of(self.metric)

    def require(self, rows: Sequence[DevsetRow], subject: Evaluated) -> None:
        pass

    async def score(self, example: Any, prediction: Any, limit: MetricLimit) -> Scored:
        placed, named = self.parameters.arguments((example, prediction))
        value = await self.runner.result(
            partial(self.metric, *placed, **named), limit, asyncio.get_running_loop() if self.awaits else None
        )
        return float(checked_score(value, self.name)), feedback_in(value)

    def stop(self) -> None:
        self.runner.stop()
        self.loop.stop()


@dataclass(frozen=True)
class BuiltInScorer:
    """A built-in metric."""

    name: str
    metric: Callable[[Any, Any], float]
    field: str | None

    def require(self, rows: Sequence[DevsetRow], subject: Evaluated) -> None:
        """Check that there is something to compare.

        Raises:
            InvalidInput: no label of an example is an output of the program.
        """
        if subject.signature is None:
            return
        outputs = set(subject.signature.output_fields)
        for at, row in enumerate(rows):
            labels = [self._only] if self._only else [name for name in row.example.labels() if name in outputs]
            if not labels or any(name not in row.example or name not in outputs for name in labels):
                raise InvalidInput(
                    f"The metric {self.name!r} has nothing to compare in devset[{at}]: its labels are "
                    f"{', '.join(row.example.labels()) or 'none'}, the program's outputs {', '.join(outputs)}.",
                    field="devset",
                )

    async def score(self, example: Any, prediction: Any, limit: MetricLimit) -> Scored:
        return self.metric(example, prediction), None

    def stop(self) -> None:
        pass

    @property
    def _only(self) -> str | None:
        return "answer" if self.name == "answer_exact_match" else self.field


@dataclass(frozen=True)
class WorkerScorer:
    """A metric that workers import, called in one of them, where it may ask the program's language model."""

    named: Mapping[str, Any]
    subject: Evaluated
    supervisor: Supervising
    pool: str = GENERAL_POOL
    may_repeat: bool = False  # where its worker dies: only there is a score worth more than a metric's side effects

    @property
    def name(self) -> str:
        return str(self.named.get("import") or self.named["name"])

    def require(self, rows: Sequence[DevsetRow], subject: Evaluated) -> None:
        """Check that the examples can be sent, and that a worker finds the metric.

        Raises:
            EncodeError, UnknownName, InvalidInput: one cannot, or it finds none.
        """
        for row in rows:
            self._crossed({"example": dict(row.example.items())})
        services_of(self.supervisor)  # which tell a worker where this process looks for modules
        self.supervisor.call(self.pool, "score", {"metric": dict(self.named)})

    async def score(self, example: Any, prediction: Any, limit: MetricLimit) -> Scored:
        if not hasattr(prediction, "items"):
            raise InvalidInput(
                f"The metric {self.name!r} is scored in a worker, which takes outputs by name, not a "
                f"{type(prediction).__name__}."
            )
        inputs = declared_inputs(example) or []
        arguments = {
            "metric": dict(self.named),
            "inputs": inputs,
            "plain": [name for name in example.keys() if name not in inputs],  # noqa: SIM118 - no Mapping
            **self._crossed({"example": dict(example.items()), "prediction": dict(prediction.items())}),
            **self._about_program(),
        }
        with contextlib.ExitStack() as stack:
            if self.program is not None:
                stack.enter_context(self.program.registered(services_of(self.supervisor)))
            bound = asyncio.timeout(limit.seconds)
            try:
                async with bound:
                    found = await self.supervisor.acall(
                        self.pool, "score", arguments, timeout=math.inf, idempotent=self.may_repeat
                    )
            except TimeoutError as error:
                if not bound.expired():
                    raise
                raise limit.exceeded() from error
            except SettingsError as error:  # of the metric: what it gives is no result
                raise UnusableMetric(str(error), key="metric") from error
        value = found.get("score") if isinstance(found, Mapping) else None
        return float(checked_score(value, self.name)), feedback_in(found)

    def stop(self) -> None:
        pass

    @property
    def program(self) -> Program[Any] | None:
        """The program that is scored, if it is one."""
        return self.subject.program if isinstance(self.subject, EvaluatedProgram) else None

    def _crossed(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return what crosses of each: plain data by name, and the rest as Python objects."""
        split = {name: SplitExamples.of([given]) for name, given in values.items()}
        plain = {name: each.plain[0] for name, each in split.items()}
        objects = {name: each.objects[0] for name, each in split.items() if each.objects[0]}
        sent = SentTypes() if self.program is None else self.program.sent
        carried = sent.carried(objects)
        return {**plain, **({} if carried is None else {"carried": carried})}

    def _about_program(self) -> dict[str, Any]:
        program = self.program
        if program is None:
            return {}
        lm = program.lm_of_workers
        return {
            "signature": None if is_open(program) else program.sent.wire,
            "lm": None if lm is None else services_of(self.supervisor).lm_record(lm),
            "adapter": program.wire_adapter(lm),
        }
