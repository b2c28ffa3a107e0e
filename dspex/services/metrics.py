"""Register metrics and rewards of this process for the time of a job, and call them when a worker asks."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from dspex_worker.user_calls import MetricParameters, Mismatch, metric_parameters, require_result

from ..errors import InvalidInput, SettingsError, UnknownName
from ..types.example import Example
from ..types.prediction import Prediction
from .registry import Registry

if TYPE_CHECKING:
    from ..pools.callbacks import Callback


class UnusableMetric(SettingsError):
    """A metric that can score no example, whatever the program answers. Workers know it by its name."""


class Metrics:
    """Metrics and rewards of this process, by the id that a job carries."""

    def __init__(self) -> None:
        self._metrics: Registry[tuple[Callable[..., Any], MetricParameters]] = Registry()

    @contextlib.contextmanager
    def described(self, metric: Any) -> Generator[dict[str, Any]]:
        """Yield what names the metric to a worker; a function is registered for the time of the block.

        Raises:
            SettingsError: it is no metric, or cannot be called as DSPy calls one.
        """
        if not callable(metric):
            yield _named(metric)
            return
        id = secrets.token_hex(8)
        with self.registered(id, metric) as parameters:
            yield {"parent": id, "sees": parameters.sees()}

    @contextlib.contextmanager
    def registered(self, id: str, metric: Callable[..., Any]) -> Generator[MetricParameters]:
        """Let workers call `metric` by `id` for the time of the block; yield how it is called.

        Raises:
            SettingsError: it cannot be called as DSPy calls a metric.
        """
        parameters = checked_parameters(metric)
        with self._metrics.registered(id, (metric, parameters)):
            yield parameters

    def call(self, request: Callback) -> Any:
        """Answer a "metric.call": a number, or a bool, as the metric gives it."""
        request.require(id=str, example=dict, prediction=dict)
        arguments = request.arguments
        found = self._metrics.get(str(arguments["id"]))
        if found is None:
            raise UnknownName("metric", str(arguments["id"]), ())
        metric, parameters = found
        placed, named = parameters.arguments(_dspy_arguments(arguments))
        value = metric(*placed, **named)
        try:
            require_result(value, "metric", metric)
        except Mismatch as error:
            raise UnusableMetric(str(error), key="metric") from error
        return _plain_score(value)


def checked_metric(metric: Any) -> None:
    """Check a metric before it is used.

    Raises:
        SettingsError: it is no metric, or cannot be called as DSPy calls one.
    """
    if callable(metric):
        checked_parameters(metric)
    else:
        _named(metric)


def checked_parameters(metric: Callable[..., Any]) -> MetricParameters:
    """Return how a metric of this process is to be called.

    Raises:
        SettingsError: it cannot be called as DSPy calls a metric.
    """
    try:
        return metric_parameters(metric)
    except Mismatch as error:
        raise SettingsError(str(error), key="metric") from error


def _named(metric: Any) -> dict[str, Any]:
    if isinstance(metric, str):
        return {"import" if ":" in metric else "name": metric}
    if isinstance(metric, Mapping):
        return dict(metric)
    raise SettingsError(
        "A metric is needed: a function (example, prediction, trace=None) -> score, a built-in's name such as "
        "'exact_match', or an import path 'module:function'.",
        key="metric",
    )


def _dspy_arguments(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what DSPy gave to the metric in the worker, as far as it can be sent."""
    example = Example(arguments["example"], arguments.get("inputs"))
    trace, pred_trace = _trace(arguments.get("trace")), _trace(arguments.get("pred_trace"))
    every = (example, Prediction(arguments["prediction"]), trace, arguments.get("pred_name"), pred_trace)
    count = arguments.get("given")
    return every[: max(2, count)] if isinstance(count, int) else every


def _trace(steps: Any) -> list[tuple[str, dict[str, Any], Prediction]] | None:
    """Return the steps as DSPy's tuples: the predictor (its class's name), its inputs and its outputs."""
    return None if steps is None else [(name, inputs, Prediction(outputs)) for name, inputs, outputs in steps]


def _plain_score(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    score = getattr(value, "score", None)
    if isinstance(score, bool | int | float):
        return {"score": score, "feedback": str(getattr(value, "feedback", ""))}
    if isinstance(value, dict) and "score" in value:
        return {"score": float(value["score"]), "feedback": str(value.get("feedback", ""))}
    item = getattr(value, "item", None)  # numpy's scalars
    if callable(item):
        return item()
    raise InvalidInput(f"A metric gives a number or a bool, not {type(value).__name__}.")
