"""Have the host score a prediction: example, prediction and trace go there as a callback, the score comes back."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import dspy

from ...context import Context
from ...failure import Failure
from ...user_calls import ROLES
from ..calls.call_context import running
from ..lms.lm_answers import taken_finish_reason
from ..values.output_encoder import cleaned, split
from ..values.output_logprobs import parted, told
from ..values.wire_values import to_wire
from .metric_scores import ROW, BadMetric, Metric, Score

NAME = "_dspex_name"  # of a predictor
_AT_ONCE_MOST = 1024  # calls of one metric; the host has fewer threads, or workers
_LOOK_EVERY = 0.2  # seconds between looks at whether the caller has gone
_ENDS_THE_JOB = ("MetricTimeout", "TooManyToolsLeft")


def metric_in_parent(spec: Mapping[str, Any]) -> Metric:
    """Return a metric that the parent runs; traces, which may be long, are sent only to one that looks at them."""
    ident, is_spread = spec["parent"], "import" in spec
    sees: frozenset[str] = frozenset(spec.get("sees") or ())
    places = threading.BoundedSemaphore(int(spec.get("at_once") or _AT_ONCE_MOST))

    def metric(*given: Any) -> Any:
        context: Context = running()
        values = dict(zip(ROLES, given, strict=False))
        ended = taken_finish_reason()
        sent = {"id": ident, "given": len(given), **_named_example(values["example"], context.is_trusted)}
        if hasattr(values["prediction"], "items"):
            sent["prediction"], sent["objects"] = split(parted(values["prediction"])[0], context.is_trusted)
            sent |= {"finish_reason": ended} if ended else {}
            sent |= {"logprobs": cleaned(logprobs)} if (logprobs := told(values["prediction"])) else {}
        else:  # a module may give a text or nothing; SIMBA gives None where the program failed
            sent |= {"prediction": {}, "value": to_wire(values["prediction"])}
        for role in ("trace", "pred_trace"):
            sent[role] = _traced(values.get(role), in_full=role in sees, is_exact=context.is_trusted)
        if values.get("pred_name") is not None:
            sent["pred_name"] = str(values["pred_name"])
        try:
            while not places.acquire(timeout=_LOOK_EVERY):
                context.check_cancelled()
            try:
                given = context.call_parent("metric.spread" if is_spread else "metric.call", sent)
            finally:
                places.release()
        except Failure as failure:
            if failure.kind in _ENDS_THE_JOB:
                raise BadMetric(failure.kind, failure.message, **failure.facts) from failure
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
    made, made_objects = _crossing(parted(outputs)[0] if hasattr(outputs, "items") else {}, is_exact)
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
