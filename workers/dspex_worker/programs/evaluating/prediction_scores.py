"""Score one prediction by a metric that the pool's `imports` hold, for an evaluation that the parent runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from ...context import Context
from ..calls.call_context import CallUsage
from ..code.host_values import values_from
from ..commands import Programs
from ..metrics.metric_calls import metric_from
from ..metrics.metric_scores import score_of, title_of
from ..modules import signature_classes
from ..modules.built_program import given
from ..modules.program_calls import Adapter, Record
from ..values.wire_values import to_wire


def score(
    programs: Programs,
    ctx: Context,
    metric: Mapping[str, Any],
    example: Mapping[str, Any] | None = None,
    prediction: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    plain: Sequence[str] = (),
    carried: bytes | None = None,
    signature: Mapping[str, Any] | None = None,
    lm: Record | None = None,
    adapter: Adapter = None,
) -> dict[str, Any]:
    """Return {"score"}, and "feedback" where the metric gives some; without a prediction, nothing but check the metric.

    Values have the signature's types, but the example's `plain` fields: these were plain data in the parent, and stay
    so, as in DSPy. `carried` are "example" and "prediction": those of their values that came as Python objects.

    Raises:
           Failure: UnknownName, InvalidInput: it is no metric, it cannot be called, or it gave no score.
    """
    imports = programs.imports_of(ctx)
    scorer = metric_from(metric, imports)
    if prediction is None:
        return {}
    known = None if signature is None else signature_classes.build(signature, imports)
    types = {} if known is None else {name: field.annotation for name, field in known.fields.items()}
    rich = {name: kind for name, kind in types.items() if name not in plain}
    objects = values_from(carried, imports)
    labeled = dspy.Example(**_typed(example or {}, rich), **objects.get("example", {})).with_inputs(*inputs)
    answered = dspy.Prediction(**_typed(prediction, types), **objects.get("prediction", {}))
    with programs.calling(ctx, lm, adapter, CallUsage()):
        found = scorer(labeled, answered)
    feedback = getattr(found, "feedback", None)
    said = {} if feedback is None else {"feedback": to_wire(str(feedback))}
    return {"score": score_of(found, title_of(metric)), **said}


def _typed(values: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given(name, value, types.get(name, Any)) for name, value in values.items()}
