"""Register metrics and rewards of this process for the time of a job, and call them when a worker asks.

A metric gets what DSPy gives it: the very example of the job, the prediction with values of the signature's types, the
trace, and GEPA's two. Any thread; asynchronous metrics run on the caller's event loop, or on one that is kept for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
import sys
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspex_worker.user_calls import (
    MetricParameters,
    Mismatch,
    feedback_in,
    metric_parameters,
    name_of,
    require_result,
    score_in,
)

from ..adapters.plain_data import to_wire
from ..adapters.validation import added_outputs, checked_inputs
from ..errors import AdapterParseError, EncodeError, InvalidInput, SettingsError, UnknownName
from ..loop_thread import LoopThread
from ..types.example import Example
from ..types.logprobs import logprobs_told
from ..types.prediction import Prediction
from ..types.traced_predictor import TracedPredictor
from .caller_loop import loop_of
from .registry import Registry

if TYPE_CHECKING:
    from ..pools.callbacks import Callback
    from ..signatures.signature import Signature


class UnusableMetric(SettingsError):
    """A metric that can score no example, whatever the program answers. Workers know it by its name."""


@dataclass(frozen=True, slots=True)
class MetricJob:
    """What a metric's arguments are made of: the job's examples, as they were given, and the types of its values."""

    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # "train" and "val"
    signature: Signature | None = None  # of the program's answers; None: nothing is known of their types
    typed: Callable[[Mapping[str, Any], Mapping[str, Any] | None], dict[str, Any]] | None = None
    packages: Collection[str] = ()  # whose classes, where they are loaded here, other outputs may be of
    is_reward: bool = False

    def example(self, arguments: Mapping[str, Any]) -> Any:
        """Return the example that a worker names, else one of the fields that it sent."""
        where = arguments.get("row")
        if isinstance(where, list) and len(where) == 2 and isinstance(where[1], int):
            rows = self.examples.get(where[0], ())
            if 0 <= where[1] < len(rows):
                return rows[where[1]]
        given, objects = arguments.get("example"), arguments.get("example_objects")
        values = dict(given) if isinstance(given, Mapping) else {}
        if self.packages and isinstance(objects, Mapping):  # of no signature, which would type them
            with contextlib.suppress(AdapterParseError):
                values |= added_outputs({name: values.get(name) for name in objects}, objects, self.packages)
        return Example(values, arguments.get("inputs"))

    def prediction(
        self, outputs: Mapping[str, Any], objects: Mapping[str, Any] | None = None, **facts: Any
    ) -> Prediction:
        """Return outputs as the program's prediction; `objects` are the exact forms of what is not plain data.

        `facts` are what else a `Prediction` says.
        """
        return Prediction(outputs if self.typed is None else self.typed(outputs, objects or {}), **facts)

    def trace(self, steps: Any) -> list[tuple[TracedPredictor, dict[str, Any], Prediction]] | None:
        """Return the steps as DSPy's tuples: the predictor, its inputs and its outputs."""
        return None if steps is None else [self._step(*step) for step in steps]

    def _step(
        self, about: Any, inputs: Any, outputs: Any, forms: Any
    ) -> tuple[TracedPredictor, dict[str, Any], Prediction]:
        predictor, (given, made) = TracedPredictor.of(about), forms
        known = self.signature
        if known is not None and predictor.signature.output_fields.keys() != known.output_fields.keys():
            known = None  # another predictor's, of whose types nothing is known here
        taken = added_outputs(inputs, given, self.packages)
        with contextlib.suppress(InvalidInput, EncodeError):  # tools, and fields that are only called the same
            taken = taken if known is None else checked_inputs(known, taken, allow_markers=True)
        if known is not None:
            with contextlib.suppress(AdapterParseError):
                return predictor, taken, self.prediction(outputs, made)
        return predictor, taken, Prediction(added_outputs(outputs, made, self.packages))


_NO_JOB = MetricJob()


class Metrics:
    """Metrics and rewards of this process, by the id that a job carries."""

    def __init__(self) -> None:
        self._metrics: Registry[tuple[Callable[..., Any], MetricParameters, MetricJob]] = Registry()
        self._loop = LoopThread("dspex-metrics")

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
        with self._metrics.registered(id, (metric, parameters, job)):
            yield parameters

    def call(self, request: Callback) -> Any:
        """Answer a "metric.call": a number or a bool, or a score with its feedback, as the metric gives it.

        Raises:
            InvalidInput: the metric gave neither.
            UnusableMetric: it gave a generator, so it can score nothing.
        """
        request.require(id=str, prediction=dict)
        arguments = request.arguments
        found = self._metrics.get(str(arguments["id"]))
        if found is None:
            raise UnknownName("metric", str(arguments["id"]), ())
        metric, parameters, job = found
        placed, named = parameters.arguments(_dspy_arguments(arguments, job))
        value = usable_result(metric(*placed, **named), metric)
        if inspect.isawaitable(value):
            value = self._awaited(value, request)
        return float(value) if job.is_reward else wire_score(value, name_of(metric))

    def _awaited(self, value: Any, request: Callback) -> Any:
        """Return an asynchronous metric's result: from the caller's loop if it has one, else from the kept one."""

        async def result() -> Any:
            return await value

        loop = loop_of(request)
        if loop is not None:
            return asyncio.run_coroutine_threadsafe(result(), loop).result()
        return self._loop.submit(result()).result()


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


def usable_result(value: Any, metric: Callable[..., Any]) -> Any:
    """Return what a metric gave; a coroutine is to be awaited.

    Raises:
        UnusableMetric: it is a generator.
    """
    try:
        return require_result(value, "metric", metric, may_await=True)
    except Mismatch as error:
        raise UnusableMetric(str(error), key="metric") from error


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
