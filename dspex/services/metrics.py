"""Register metrics and rewards of this process for the time of a job, and call them when a worker asks.

A metric gets what DSPy gives it: the very example of the job, the prediction with values of the signature's types, the
trace, and GEPA's two. Any thread; asynchronous metrics run on the caller's event loop, or on one that is kept for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import sys
import weakref
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_worker.user_calls import (
    MetricParameters,
    Mismatch,
    feedback_in,
    metric_parameters,
    name_of,
    score_in,
)

from ..adapters.plain_data import to_wire
from ..errors import EncodeError, InvalidInput, SettingsError, UnknownName
from ..types.logprobs import logprobs_told
from .caller_loop import loop_of
from .metric_job import MetricJob
from .metric_limit import MetricLimit
from .metric_loop import MetricLoop, result_on
from .metric_runner import MetricRunner
from .registry import Registry

if TYPE_CHECKING:
    from ..pools.callbacks import Callback


_NO_JOB = MetricJob()


class Metrics:
    """Metrics and rewards of this process, by the id that a job carries."""

    def __init__(self) -> None:
        self._metrics: Registry[RegisteredMetric] = Registry()
        self._loops: weakref.WeakKeyDictionary[Any, MetricLoop] = weakref.WeakKeyDictionary()

    @contextlib.contextmanager
    def described(self, metric: Any, job: MetricJob = _NO_JOB) -> Generator[dict[str, Any]]:
        """Yield what names the metric to a worker; a function is registered for the time of the block.

        Raises:
            SettingsError: it is no metric, or cannot be called as DSPy calls one.
        """
        if not callable(metric):
            yield named_metric(metric)
            return
        id = secrets.token_hex(8)
        with self.registered(id, metric, job) as parameters:
            yield {"parent": id, "sees": parameters.sees(), "title": name_of(metric)}

    @contextlib.contextmanager
    def registered(self, id: str, metric: Callable[..., Any], job: MetricJob = _NO_JOB) -> Generator[MetricParameters]:
        """Let workers call `metric` by `id` for the time of the block; yield how it is called.

        Raises:
            SettingsError: it cannot be called as DSPy calls a metric.
        """
        parameters = checked_parameters(metric)
        runner = MetricRunner(metric, self._loop_of(metric))
        try:
            with self._metrics.registered(id, RegisteredMetric(metric, parameters, job, runner)):
                yield parameters
        finally:
            runner.stop()

    async def call(self, request: Callback) -> Any:
        """Answer a "metric.call": a number or a bool, or a score with its feedback, as the metric gives it.

        Raises:
            InvalidInput: the metric gave neither.
            MetricTimeout: it took longer than its job allows.
            UnusableMetric: it gave a generator, so it can score nothing.
        """
        found, called, limit = self._asked(request)
        return found.told(await found.runner.result(called, limit, loop_of(request)))

    async def call_here(self, request: Callback) -> Any:
        """`call`, for an asynchronous metric of DSPex's own, which blocks no loop.

        Raises:
            InvalidInput, MetricTimeout: as `call`.
        """
        found, called, limit = self._asked(request)
        return found.told(await result_on(asyncio.get_running_loop(), called, limit))

    def _loop_of(self, metric: Callable[..., Any]) -> MetricLoop:
        """Return a metric's loop: the same in each of its jobs, and no other metric's, which it could block."""
        owner = getattr(metric, "__self__", metric)  # a bound method is made anew each time
        try:
            return self._loops.setdefault(owner, MetricLoop())
        except TypeError:  # it cannot be a key; its loop ends with the job
            return MetricLoop()

    def _asked(self, request: Callback) -> tuple[RegisteredMetric, Callable[[], Any], MetricLimit]:
        """Return the metric that a request names, its call and the limit of that."""
        request.require(id=str, prediction=dict)
        arguments = request.arguments
        found = self._metrics.get(str(arguments["id"]))
        if found is None:
            raise UnknownName("metric", str(arguments["id"]), ())
        limit = MetricLimit(name_of(found.metric), _place_of(arguments), found.job.limit_s, request.pool.name)
        return found, functools.partial(found.called, arguments), limit


@dataclass(frozen=True, slots=True)
class RegisteredMetric:
    """A metric for the time of a job."""

    metric: Callable[..., Any]
    parameters: MetricParameters
    job: MetricJob
    runner: MetricRunner

    def called(self, arguments: Mapping[str, Any]) -> Any:
        """Return what the metric gives for what a worker sent: values that validate themselves are the user's code."""
        placed, named = self.parameters.arguments(_dspy_arguments(arguments, self.job))
        return self.metric(*placed, **named)

    def told(self, value: Any) -> Any:
        """Return what it gave as a worker reads it.

        Raises:
            InvalidInput: it gave no number.
        """
        return float(value) if self.job.is_reward else wire_score(value, name_of(self.metric))


def checked_metric(metric: Any) -> None:
    """Check a metric before it is used.

    Raises:
        SettingsError: it is no metric, or cannot be called as DSPy calls one.
    """
    if callable(metric):
        checked_parameters(metric)
    else:
        named_metric(metric)


def checked_parameters(metric: Callable[..., Any]) -> MetricParameters:
    """Return how a metric of this process is to be called.

    Raises:
        SettingsError: it cannot be called as DSPy calls a metric, or it is a module of DSPy's that has no LM here.
    """
    try:
        parameters = metric_parameters(metric)
    except Mismatch as error:
        raise SettingsError(str(error), key="metric") from error
    _require_lm(metric)
    return parameters


def named_metric(metric: Any) -> dict[str, Any]:
    """Return what names a metric that is no function.

    Raises:
        SettingsError: it names none.
    """
    if isinstance(metric, str) and metric:
        return {"import" if ":" in metric else "name": metric}
    if isinstance(metric, Mapping) and ("import" in metric or "name" in metric):
        return dict(metric)
    raise SettingsError(
        f"A metric is needed, not {metric!r}: a function (example, prediction, trace=None) -> score, a built-in's name "
        f"such as 'exact_match', or an import path 'module:function'.",
        key="metric",
    )


def checked_score(value: Any, name: str) -> float | bool:
    """Return the number that a metric gave.

    Raises:
        InvalidInput: it gave none, or one that is not finite.
    """
    try:
        return score_in(value, f"metric {name}")
    except Mismatch as error:
        raise InvalidInput(str(error), field="metric") from error


def wire_score(value: Any, name: str) -> Any:
    """Return what a metric gave as plain data: its number, or its score with the feedback and what else is beside it.

    Raises:
        InvalidInput: it gave no number.
    """
    score = checked_score(value, name)
    if not (isinstance(value, Mapping) or hasattr(value, "score")):
        return score
    items: Any = value.items() if hasattr(value, "items") else ()
    beside: dict[str, Any] = {}
    for key, each in items:
        with contextlib.suppress(EncodeError):  # what cannot be sent is no part of what an optimizer reads
            beside[str(key)] = to_wire(each)
    feedback = feedback_in(value)
    return {**beside, "score": score, **({} if feedback is None else {"feedback": feedback})}


def _dspy_arguments(arguments: Mapping[str, Any], job: MetricJob) -> tuple[Any, ...]:
    """Return what DSPy gave to the metric in the worker, as far as it can be sent."""
    trace, pred_trace = job.trace(arguments.get("trace")), job.trace(arguments.get("pred_trace"))
    prediction = _prediction_of(arguments, job)
    every = (job.example(arguments), prediction, trace, arguments.get("pred_name"), pred_trace)
    count = arguments.get("given")
    return every[: max(2, count)] if isinstance(count, int) else every


def _place_of(arguments: Mapping[str, Any]) -> str:
    """Return what an example is called in messages: its list and its place there, if the job has it."""
    where = arguments.get("row")
    return f"{where[0]}set[{where[1]}]" if isinstance(where, list) and len(where) == 2 else "an example of the worker's"


def _prediction_of(arguments: Mapping[str, Any], job: MetricJob) -> Any:
    if "value" in arguments:
        return arguments["value"]
    objects, reason, told = (arguments.get(name) for name in ("objects", "finish_reason", "logprobs"))
    return job.prediction(
        arguments["prediction"],
        objects if isinstance(objects, dict) else None,
        finish_reason=reason if isinstance(reason, str) else "",
        logprobs=logprobs_told([each for each in told if isinstance(each, dict)]) if isinstance(told, list) else (),
    )


def _require_lm(metric: Any) -> None:
    """Check that a module of DSPy's (SemanticF1) has a language model: it asks with DSPy's own, in this process.

    Raises:
        SettingsError: it has none, so that every example would fail after its prediction was paid.
    """
    dspy = sys.modules.get("dspy")
    kind = getattr(dspy, "Module", None)
    if dspy is None or kind is None or not isinstance(metric, kind) or dspy.settings.lm is not None:
        return
    if any(predictor.lm is None for predictor in metric.predictors()):
        name = type(metric).__name__
        raise SettingsError(
            f"The metric {name} is a dspy.Module, which asks DSPy's own language model in this process, and there is "
            f"none: call dspy.configure(lm=...), or have workers ask the program's with its import path, such as "
            f"metric='{type(metric).__module__}:{name}'.",
            key="metric",
        )
