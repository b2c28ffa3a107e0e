"""Register metrics and rewards of this process for the time of a job, and call them when a worker asks.

A metric gets what DSPy gives it: the very example of the job, the prediction with values of the signature's types, the
trace, and GEPA's two. Any thread; asynchronous metrics run on the caller's event loop, or on one that is kept for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import secrets
import sys
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from dspex_worker.user_calls import (
    MetricParameters,
    Mismatch,
    feedback_in,
    is_asynchronous,
    metric_parameters,
    name_of,
    require_result,
    score_in,
)

from ..adapters.plain_data import to_wire
from ..errors import EncodeError, InvalidInput, MetricTimeout, SettingsError, UnknownName
from ..types.logprobs import logprobs_told
from .caller_loop import loop_of
from .metric_job import MetricJob
from .metric_loops import MetricLoops
from .registry import Registry

if TYPE_CHECKING:
    from ..pools.callbacks import Callback


class UnusableMetric(SettingsError):
    """A metric that can score no example, whatever the program answers. Workers know it by its name."""


LOOK_S = 0.5  # seconds between looks at whether a metric's loop was left
_NO_JOB = MetricJob()


class Metrics:
    """Metrics and rewards of this process, by the id that a job carries."""

    def __init__(self) -> None:
        self._metrics: Registry[tuple[Callable[..., Any], MetricParameters, MetricJob]] = Registry()
        self._loops = MetricLoops()

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
            awaits = {"awaits": True} if is_asynchronous(metric) else {}
            yield {"parent": id, "sees": parameters.sees(), "title": name_of(metric), **awaits}

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
        metric, placed, named, job = self._asked(request)
        value = usable_result(metric(*placed, **named), metric)
        if inspect.isawaitable(value):
            value = self._awaited(value, metric, request)
        return float(value) if job.is_reward else wire_score(value, name_of(metric))

    async def acall(self, request: Callback) -> Any:
        """`call`, for an asynchronous metric, which waits in no thread; it is cancelled with the request.

        Raises:
            InvalidInput: as `call`.
        """
        metric, placed, named, job = self._asked(request)
        value = usable_result(metric(*placed, **named), metric)
        try:
            if inspect.isawaitable(value):
                value = await self._answered(value, metric, request)
        except (asyncio.CancelledError, MetricTimeout):
            if loop_of(request) is None:
                self._loops.renew_if_blocked(metric)
            raise
        return float(value) if job.is_reward else wire_score(value, name_of(metric))

    async def _answered(self, value: Any, metric: Callable[..., Any], request: Callback) -> Any:
        """Return what a metric gives. Its time counts from when its loop begins it: another may block that loop.

        Raises:
            MetricTimeout: that is over the request's limit; the metric is cancelled.
        """
        here, begun, limit_s = asyncio.get_running_loop(), asyncio.Event(), request.arguments.get("limit_s")
        begin = functools.partial(here.call_soon_threadsafe, begun.set)
        loop, waiting = self._started(value, metric, request, begin)
        if not isinstance(limit_s, int | float):
            return await waiting
        beginning = asyncio.ensure_future(begun.wait())
        try:
            while not (await _first(waiting, beginning))[0]:
                if loop.is_running() and self._loops.has_left(metric, loop):
                    waiting.cancel()  # it never begins: another call blocks that loop
                    loop, waiting = self._started(value, metric, request, begin)
        finally:
            beginning.cancel()
        await asyncio.wait({waiting}, timeout=limit_s)
        if not waiting.done():
            waiting.cancel()
            raise MetricTimeout(name_of(metric), example="an example", limit=limit_s)
        return await waiting

    def _awaited(self, value: Any, metric: Callable[..., Any], request: Callback) -> Any:
        """Return what a metric gives that no one could see to be asynchronous; its thread waits."""

        async def result() -> Any:
            return await value

        loop = loop_of(request) or self._loops.of(metric).running()
        return asyncio.run_coroutine_threadsafe(result(), loop).result()

    def _asked(self, request: Callback) -> tuple[Callable[..., Any], list[Any], dict[str, Any], MetricJob]:
        """Return the metric that a request names, its arguments and its job."""
        request.require(id=str, prediction=dict)
        arguments = request.arguments
        found = self._metrics.get(str(arguments["id"]))
        if found is None:
            raise UnknownName("metric", str(arguments["id"]), ())
        metric, parameters, job = found
        return metric, *parameters.arguments(_dspy_arguments(arguments, job)), job

    def _started(
        self, value: Any, metric: Callable[..., Any], request: Callback, on_start: Callable[[], object]
    ) -> tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]:
        """Begin an asynchronous metric: on the caller's loop if it has one, else on the metric's; return it too."""
        loop = loop_of(request) or self._loops.of(metric).running()

        async def result() -> Any:
            if self._loops.has_left(metric, asyncio.get_running_loop()):  # it was begun again on another
                return None
            on_start()
            return await value

        return loop, asyncio.wrap_future(asyncio.run_coroutine_threadsafe(result(), loop))


async def _first(*waits: asyncio.Future[Any]) -> tuple[set[asyncio.Future[Any]], set[asyncio.Future[Any]]]:
    return await asyncio.wait(waits, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)


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
