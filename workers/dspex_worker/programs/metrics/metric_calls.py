"""Make metrics from specs: by name, by import, or in the parent; each is called as DSPy calls a metric.

A metric argument is {"name": built-in, "field"?, "threshold"?}, {"import": "module:function"} from the pool's
`imports`, or {"parent": id} for a callable of the host's. Threads: wherever DSPy evaluates.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import dspy
from dspy.evaluate.metrics import EM, F1, answer_passage_match, normalize_text

from ...context import Context
from ...failure import Failure
from ...user_calls import (
    ROLES,
    Mismatch,
    awaited,
    feedback_in,
    metric_parameters,
    require_arguments,
    require_result,
    score_in,
)
from ..calls.call_context import USAGE, CallUsage, in_call, running
from ..code.user_imports import UserImports
from ..dspy_errors import invalid_input, unknown_name
from ..values.output_encoder import split
from ..values.wire_values import to_wire


class BadMetric(Failure):
    """A metric that can score no example, whatever the program answers: it ends the job at the first one."""


ROW = "_dspex_row"  # of an example: (its list, its place there), by which the parent finds the very one it was given
NAME = "_dspex_name"  # of a predictor
Metric = Callable[..., Any]
Compare = Callable[[str, str], float]
DEFAULT_THRESHOLD = 0.8  # from which partial score on an example counts as a success worth a demonstration


def metric_from(spec: Mapping[str, Any], imports: UserImports) -> Metric:
    """Return the metric that `spec` names, callable with (example, prediction) and up to three more as DSPy gives them.

    Raises:
        Failure: UnknownName for a name that is not known; InvalidInput for a spec that is none, and for a function that
            cannot be called as a metric.
    """
    match spec:
        case {"name": str(name)}:
            return _builtin(name, spec)
        case {"import": str(path)}:
            return _imported(imports.resolve_own(path, "metric"), path)
        case {"parent": ident}:
            return _in_parent(ident, frozenset(spec.get("sees") or ()))
        case _:
            raise invalid_input("A metric is given as {'name': ...}, {'import': 'module:function'} or {'parent': id}.")


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
        except Exception as error:
            call_usage: CallUsage = dspy.settings.get(USAGE) or CallUsage()
            call_usage.record_error(error)
            raise

    return recording


def title_of(spec: Mapping[str, Any]) -> str:
    """Return what a metric is called in messages."""
    return str(spec.get("title") or spec.get("import") or spec.get("name") or "the host's")


def score_of(value: Any, title: str = "") -> float:
    """Return a metric's result as a number; GEPA's metrics give an object with a score and feedback.

    Raises:
        Failure: InvalidInput, when it is none, or not finite.
    """
    try:
        return float(score_in(value, f"metric {title}".strip()))
    except Mismatch as error:
        raise invalid_input(str(error), "metric") from error


class Score(dspy.Prediction):  # type: ignore[misc]
    """A score with feedback and the like, as GEPA's metrics give it; false if its score is.

    DSPy's BootstrapFewShot asks for the truth of what a metric gave, and a Prediction with a score of 0 is true.
    """

    def __bool__(self) -> bool:
        return bool(self.score)


def comparable(value: Any, title: str = "") -> Any:
    """Return a metric's result as DSPy's optimizers can use it: a number, or a `Score`, of whatever it gave.

    Raises:
        Failure: InvalidInput, when it is no score.
    """
    try:
        score = score_in(value, f"metric {title}".strip())
    except Mismatch as error:
        raise invalid_input(str(error), "metric") from error
    if isinstance(value, Mapping | dspy.Example):
        return Score(**{**dict(value.items()), "score": score})
    if hasattr(value, "score"):
        feedback = feedback_in(value)
        return Score(score=score, **({} if feedback is None else {"feedback": feedback}))
    return score


# --- built in -----------------------------------------------------------------------------------------------------


def _exact(predicted: str, expected: str) -> float:
    return float(EM(predicted, [expected]))


def _f1(predicted: str, expected: str) -> float:
    return float(F1(predicted, [expected]))


def _contains(predicted: str, expected: str) -> float:
    return float(normalize_text(expected) in normalize_text(predicted))


_COMPARISONS: dict[str, Compare] = {"exact_match": _exact, "f1": _f1, "contains": _contains}
BUILT_IN = (*_COMPARISONS, "answer_exact_match", "answer_passage_match")


def _builtin(name: str, spec: Mapping[str, Any]) -> Metric:
    if name == "answer_passage_match":
        return lambda example, prediction, trace=None, *_: answer_passage_match(example, prediction, trace)
    if name == "answer_exact_match":
        return _by_field(_COMPARISONS["exact_match"], "answer", None)
    if name not in _COMPARISONS:
        raise unknown_name("metric", name, BUILT_IN)
    return _by_field(_COMPARISONS[name], spec.get("field"), spec.get("threshold"))


def _by_field(compare: Compare, field: str | None, threshold: float | None) -> Metric:
    """Compare one field, or every label of the example that the prediction has; the score is the mean."""
    enough = DEFAULT_THRESHOLD if threshold is None else threshold

    def metric(example: Any, prediction: Any, trace: Any = None, *_: Any) -> float | bool:
        names = [field] if field else [name for name in example.labels().keys() if name in prediction]  # noqa: SIM118
        if not names:
            raise invalid_input("The example and the prediction have no field in common to compare.")
        score = sum(_compare_values(compare, prediction[name], example[name]) for name in names) / len(names)
        # While demonstrations are collected DSPy takes any score but zero for a success.
        return score if trace is None else score >= enough

    return metric


def _compare_values(compare: Compare, predicted: Any, expected: Any) -> float:
    predicted, expected = to_wire(predicted), to_wire(expected)
    if isinstance(expected, str) or isinstance(predicted, str):
        options = expected if isinstance(expected, list) else [expected]
        return max((compare(str(predicted), str(option)) for option in options), default=0.0)
    return float(predicted == expected)


# --- elsewhere ----------------------------------------------------------------------------------------------------


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


def _in_parent(ident: Any, sees: frozenset[str]) -> Metric:
    """Return a metric that the parent runs; traces, which may be long, are sent only to one that looks at them."""

    def metric(*given: Any) -> Any:
        context: Context = running()
        values = dict(zip(ROLES, given, strict=False))
        sent = {"id": ident, "given": len(given), **_named_example(values["example"], context.is_trusted)}
        if hasattr(values["prediction"], "items"):
            sent["prediction"], sent["objects"] = split(values["prediction"], context.is_trusted)
        else:  # a module may give a text or nothing; SIMBA gives None where the program failed
            sent |= {"prediction": {}, "value": to_wire(values["prediction"])}
        for role in ("trace", "pred_trace"):
            sent[role] = _traced(values.get(role), in_full=role in sees, is_exact=context.is_trusted)
        if values.get("pred_name") is not None:
            sent["pred_name"] = str(values["pred_name"])
        try:
            given = context.call_parent("metric.call", sent)
        except Failure as failure:
            if failure.kind == "UnusableMetric":
                raise BadMetric("SettingsError", failure.message, key="metric") from failure
            raise
        return Score(**given) if isinstance(given, dict) else given

    return metric


def _named_example(example: Any, is_exact: bool) -> dict[str, Any]:
    """Return where the parent has the example, or the example itself where it was made here."""
    where = getattr(example, ROW, None)
    if where is not None:
        return {"row": list(where)}
    _, objects = _crossing(dict(example.items()), is_exact)
    sent = {"example": to_wire(example), "inputs": to_wire(getattr(example, "_input_keys", None))}
    return sent | ({"example_objects": objects} if objects else {})


def _traced(trace: Any, *, in_full: bool, is_exact: bool) -> list[Any] | None:
    """Return [the predictor, inputs, outputs, both's exact forms] for each step; empty if the metric sees no trace."""
    if trace is None or not in_full or not isinstance(trace, list | tuple):
        return None if trace is None else []
    return [_step(*step, is_exact=is_exact) for step in trace]


def _step(predictor: Any, inputs: Any, outputs: Any, *, is_exact: bool) -> list[Any]:
    given, given_objects = _crossing(dict(inputs), is_exact)
    made, made_objects = _crossing(dict(outputs.items()) if hasattr(outputs, "items") else {}, is_exact)
    return [_about(predictor), given, made, [given_objects, made_objects]]


def _crossing(values: Mapping[str, Any], is_exact: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of a step as they cross; of what cannot (a tool, whose function is the parent's), the text."""
    plain: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for name, value in values.items():
        try:
            one, more = split({name: value}, is_exact)
        except (ValueError, TypeError):  # pydantic's own errors are ValueErrors
            one, more = {name: str(value)}, {}
        plain, objects = {**plain, **one}, {**objects, **more}
    return plain, objects


def _about(predictor: Any) -> dict[str, Any]:
    """Return what a metric of the parent sees of a predictor: its name, its class's, and its signature's words."""
    signature = getattr(predictor, "signature", None)
    about = {"name": str(getattr(predictor, NAME, "")), "module": type(predictor).__name__}
    if signature is None:
        return about
    described = {
        side: {name: str((field.json_schema_extra or {}).get("desc", "")) for name, field in fields.items()}
        for side, fields in (("inputs", signature.input_fields), ("outputs", signature.output_fields))
    }
    return {**about, "instructions": signature.instructions, **described}


def name_predictors(program: dspy.Module) -> None:
    """Note the predictors' names on themselves, where copies keep them: traces hold predictors of many copies."""
    for name, predictor in program.named_predictors():
        object.__setattr__(predictor, NAME, name)
