"""Call a built program once, and return what of its answer is sent back. Any thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dspy

from ...failure import Failure
from ...types import nested_values
from ..calls.call_context import HISTORIES, OBSERVER, CallUsage, ErrorRecorder
from ..calls.call_histories import CallHistories
from ..dspy_errors import failure_of, invalid_input
from ..observing.call_observer import CallObserver
from ..values.output_encoder import cleaned, exact, split
from ..values.output_logprobs import parted
from ..values.wire_values import to_wire
from .awaited_programs import result_from
from .built_program import BuiltProgram
from .call_arguments import placed
from .module_builder import check_config

Spec = Mapping[str, Any]
Record = Mapping[str, Any]
Adapter = str | Mapping[str, Any] | None  # see `adapter_named`


def call(built: BuiltProgram, arguments: Mapping[str, Any], options: Mapping[str, Any], *, awaits: bool = False) -> Any:
    """Call a program with options for its LM calls, in the way that it takes them."""
    first, named = placed(built.taken, arguments) if built.is_own else ((), arguments)
    if not options:
        return result_from(built.program, first, named, loop=built.loop, awaits=awaits)
    if built.takes_config:
        return built.program(**arguments, config=dict(options))
    lm = dspy.settings.lm
    with dspy.context(lm=None if lm is None else lm.copy(**options)):
        return result_from(built.program, first, named, loop=built.loop, awaits=awaits)


def configured(built: BuiltProgram, lm: Any, options: Mapping[str, Any]) -> Any:
    """Have a program of one's own make its LM calls with options, as `call` would; return the LM that it is to ask."""
    if not options:
        return lm
    if not built.takes_config:
        return None if lm is None else lm.copy(**options)
    for _, predictor in built.program.named_predictors():
        predictor.config = {**predictor.config, **options}
    return lm


def call_options(config: Mapping[str, Any] | None, rollout_id: int | None) -> dict[str, Any]:
    """Return the options of one call's LM requests.

    Raises:
        Failure: InvalidInput, when they would move the LM's endpoint.
    """
    options = check_config(config or {}, "The call's config")
    return options if rollout_id is None else {**options, "rollout_id": rollout_id}


def result_of(prediction: Any, *, is_exact: bool = False) -> dict[str, Any]:
    """Return the wire form of a program's result: plain data, cleaned so that any message can hold it.

    With `is_exact`, what is not plain is None there, and in "exact" as what it is: for the outputs first, then for each
    of the completions.

    Raises:
        Failure: InvalidInput, when it is neither a prediction nor a mapping.
    """
    if not isinstance(prediction, dspy.Example | Mapping):
        raise invalid_input(
            f"The program gave a {type(prediction).__name__}; it must give a dspy.Prediction or a dict."
        )
    completions = getattr(prediction, "completions", None)
    several = completions if completions is not None and len(completions) > 1 else ()
    apart = [parted(one) for one in (prediction, *several)]
    forms = [split(outputs, is_exact) for outputs, _ in apart]
    result: dict[str, Any] = {"outputs": forms[0][0]}
    if several:
        result["completions"] = [plain for plain, _ in forms[1:]]
    if any(objects for _, objects in forms):
        result["exact"] = [objects for _, objects in forms]
    if any(logprobs for _, logprobs in apart):
        result["logprobs"] = cleaned([logprobs or {} for _, logprobs in apart])
    return result


def returned(built: BuiltProgram, value: Any, *, is_exact: bool = False) -> dict[str, Any]:
    """Return the wire form of what a program returned: of an open one anything that has a form.

    Raises:
        Failure: InvalidReturn, which names the program.
    """
    what = type(value).__name__
    is_prediction = isinstance(value, dspy.Example) or (isinstance(value, Mapping) and not built.is_open)
    if not built.is_open and not is_prediction:
        raise Failure(
            "InvalidReturn",
            f"{built.name} returned a {what}; with a signature it must give a dspy.Prediction or a dict.",
        )
    if is_prediction and not built.is_open:
        _require_outputs(built, value)
    try:
        if is_prediction:
            return result_of(value, is_exact=is_exact)
        return {"value": nested_values.write(value, _exactly if is_exact else _whole)}
    except (ValueError, TypeError) as error:  # pydantic's own errors are ValueErrors
        raise Failure(
            "InvalidReturn",
            f"{built.name} returned a {what} that cannot be sent to its caller: {error}. Return a dspy.Prediction, or "
            f"text, numbers, lists, tuples and dicts of such.",
        ) from error


def _require_outputs(built: BuiltProgram, value: Any) -> None:
    """Check that a user's module gave what its signature says."""
    given = {str(name) for name in value.keys()}  # noqa: SIM118 - a dspy.Prediction iterates otherwise
    missing = [name for name in built.annotations if name not in built.inputs and name not in given]
    if missing and built.is_own:
        raise Failure(
            "InvalidReturn",
            f"{built.name} returned {', '.join(sorted(given)) or 'nothing'}; its signature also has "
            f"{', '.join(missing)}. Return them too, or name another signature.",
        )


def _exactly(value: Any) -> dict[str, Any]:
    _require_whole(value)
    return {"exact": exact(value)}


def _whole(value: Any) -> dict[str, Any]:
    _require_whole(value)
    return {"data": cleaned(to_wire(value))}


def _require_whole(value: Any) -> None:
    if isinstance(value, Iterator):  # pydantic would read it to its end, which may be never
        raise TypeError("a generator can be read only in the process that made it")


def accounted(
    built: BuiltProgram,
    value: Any,
    call_usage: CallUsage,
    want: Mapping[str, Any] | None = None,
    observer: CallObserver | None = None,
    *,
    is_exact: bool = False,
) -> dict[str, Any]:
    """Return a program's result with what it cost: usage by model, and whether the cache answered all of it.

    For who wants to see more, also why the last answer ended, how many were cut at their length, and the trace.

    Raises:
        Failure: it gave nothing that can be sent.
    """
    if value is None and built.swallows_errors:
        raise nothing_came(built, call_usage)
    tokens = {model: used for model, used in call_usage.tokens.get_total_tokens().items() if used}
    result = {**returned(built, value, is_exact=is_exact), "usage": to_wire(tokens), "cached": call_usage.is_cached}
    if want is not None:
        result |= {"finish_reason": call_usage.finish_reason, "truncated": call_usage.truncated}
    if observer is not None and observer.steps is not None:
        result["trace"] = observer.steps
    return result


def watching(built: BuiltProgram, call_usage: CallUsage, observer: CallObserver | None) -> dict[str, Any]:
    """Return the settings of DSPy under which a call's usage is counted, and its steps are seen."""
    settings: dict[str, Any] = {"usage_tracker": call_usage.tokens}
    if built.is_own:
        settings[HISTORIES] = CallHistories()
    seeing: list[Any] = [ErrorRecorder(call_usage)] if built.swallows_errors else []
    if observer is not None:
        settings[OBSERVER] = observer
        seeing.append(observer)
    if seeing:
        settings["callbacks"] = [*(dspy.settings.callbacks or []), *seeing]
    return settings


def nothing_came(built: BuiltProgram, call_usage: CallUsage) -> Failure:
    """Return why a program gave None: BestOfN and Refine do so when every attempt failed."""
    if call_usage.last is not None:
        return failure_of(call_usage.last)
    return Failure("NoPrediction", f"{built.name} gave no prediction: no attempt had a reward.")
