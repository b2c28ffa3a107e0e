"""Make metrics from specs: by name, by import, or in the parent; each is called as DSPy calls a metric.

A metric argument is {"name": built-in, "field"?, "threshold"?}, {"import": "module:function"} from the pool's
`imports`, or {"parent": id} for a callable of the host's. Threads: wherever DSPy evaluates.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from ...user_calls import Mismatch, awaited, metric_parameters, require_arguments, require_result, score_in
from ..calls.call_context import USAGE, CallUsage, in_call, running
from ..code.user_imports import UserImports
from ..dspy_errors import invalid_input
from .field_metrics import built_in
from .host_metrics import metric_in_parent
from .metric_clock import MetricClock
from .metric_scores import BadMetric, Metric


def metric_from(spec: Mapping[str, Any], imports: UserImports, clock: MetricClock | None = None) -> Metric:
    """Return the metric that `spec` names, callable with (example, prediction) and up to three more as DSPy gives them.

    The clock notes the calls of one that is called in this process.

    Raises:
        Failure: UnknownName for a name that is not known; InvalidInput for a spec that is none, and for a function that
            cannot be called as a metric.
    """
    match spec:
        case {"name": str(name)}:
            return built_in(name, spec)
        case {"import": str(path)}:
            here = _imported(imports.resolve_own(path, "metric"), path)
            here = here if clock is None else clock.timed(here)
            return _spread(here, metric_in_parent(spec)) if "parent" in spec else here
        case {"parent": _}:
            return metric_in_parent(spec)
        case _:
            raise invalid_input("A metric is given as {'name': ...}, {'import': 'module:function'} or {'parent': id}.")


def _spread(here: Metric, elsewhere: Metric) -> Metric:
    """Return a metric that other workers score, but where it gets more than the example and the prediction."""

    def metric(*given: Any) -> Any:
        return (elsewhere if all(each is None for each in given[2:]) else here)(*given)

    return metric


def reward_from(spec: Mapping[str, Any], imports: UserImports) -> Callable[[dict[str, Any], Any], float]:
    """Return the same as a reward function of BestOfN and Refine: `reward(arguments, prediction)`.

    An imported function is called so, as DSPy documents; the others get the arguments as their example.
    """
    if "import" in spec:
        function = _checked_reward(imports.resolve_own(str(spec["import"]), "reward function"))
        return _recording(lambda arguments, prediction: _reward_of(in_call(running(), function, arguments, prediction)))
    metric = metric_from(spec, imports)
    return _recording(lambda arguments, prediction: _reward_of(metric(dspy.Example(**arguments), prediction)))


def _reward_of(value: Any) -> float:
    try:
        return float(score_in(value, "reward", may_be_odd=True))
    except Mismatch as error:
        raise invalid_input(str(error), "reward_fn") from error


def _recording(reward: Callable[[dict[str, Any], Any], float]) -> Callable[[dict[str, Any], Any], float]:
    """Return the reward, with what it raises kept for the call: DSPy takes it for a failed attempt."""

    def recording(arguments: dict[str, Any], prediction: Any) -> float:
        try:
            return reward(arguments, prediction)
        except Exception as error:  # a reward may raise anything; counted, and raised
            call_usage: CallUsage = dspy.settings.get(USAGE) or CallUsage()
            call_usage.record_error(error)
            raise

    return recording


def _imported(function: Any, path: str) -> Metric:
    if isinstance(function, type) and issubclass(function, dspy.Module):
        function = _module_metric(function, path)  # SemanticF1 and its like, which ask the program's LM
    try:
        parameters = metric_parameters(function)
    except Mismatch as error:
        raise invalid_input(f"{path}: {error}") from error

    def metric(*given: Any) -> Any:
        placed, named = parameters.arguments(given)
        try:
            return in_call(running(), _result, function, placed, named)
        except Mismatch as error:
            raise BadMetric("SettingsError", f"{path}: {error}", key="metric") from error

    return metric


def _module_metric(cls: type[dspy.Module], path: str) -> dspy.Module:
    try:
        return cls()
    except TypeError as error:
        raise invalid_input(f"{path} is a module that cannot be made without arguments: {error}.") from error


def _result(function: Metric, placed: list[Any], named: dict[str, Any]) -> Any:
    """Return what a metric gives, once it is there."""
    value = require_result(function(*placed, **named), "metric", function, may_await=True)
    return awaited(value) if inspect.isawaitable(value) else value


def _checked_reward(function: Any) -> Callable[..., Any]:
    try:
        require_arguments(function, "reward", "arguments", "prediction")
    except Mismatch as error:
        raise invalid_input(str(error)) from error
    checked: Callable[..., Any] = function
    return checked
