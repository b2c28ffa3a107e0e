"""Find out, before a user's function is called, how it takes what DSPy passes to it.

DSPy calls a metric by position: (example, prediction) to score it, with a `trace` while demonstrations are collected,
and GEPA adds `pred_name` and `pred_trace`. A metric may have parameters of its own besides (`frac=1.0`), which get
none of these. The parent and its workers ask here, so that a metric scores the same in both. Pure; any thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

ROLES = ("example", "prediction", "trace", "pred_name", "pred_trace")
_GIVEN = (2, 3, 5)  # how many of them DSPy gives: to score, to collect demonstrations, in GEPA
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Mismatch(TypeError):
    """A function that cannot be called with the arguments that it will get."""


@dataclass(frozen=True, slots=True)
class MetricParameters:
    """The roles that a metric takes by position and by name, and those that it requires."""

    positional: int
    takes_rest: bool = False
    named: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()

    def arguments(self, given: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and named arguments for what DSPy gave; a required role that was not given is None."""
        values = dict(zip(ROLES, given, strict=False))
        placed: list[Any] = []
        named: dict[str, Any] = {}
        for at, role in enumerate(ROLES):
            if role not in values and role not in self.required:
                continue
            if at < self.positional:
                placed.append(values.get(role))
            elif role in self.named:
                named[role] = values.get(role)
            elif self.takes_rest and at == len(placed):
                placed.append(values.get(role))
        return placed, named

    def sees(self) -> list[str]:
        """Return the roles that the metric gets when DSPy gives them all."""
        placed, named = self.arguments(ROLES)
        return [role for role in ROLES if role in placed or role in named]


_AS_GIVEN = MetricParameters(len(ROLES))


def metric_parameters(metric: Callable[..., Any]) -> MetricParameters:
    """Return how `metric` takes its arguments.

    Raises:
        Mismatch: it cannot be called as a metric in any way that DSPy has.
    """
    _require_callable(metric, "metric", may_await=True)
    for is_one in (inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        if any(map(is_one, (metric, type(metric).__call__))):
            raise Mismatch(f"The metric {name_of(metric)} is a generator; it must return its result.")
    signature = _signature(metric)
    if signature is None:
        return _AS_GIVEN
    found = _convention(signature.parameters)
    for count in _GIVEN:
        placed, named = found.arguments([None] * count)
        try:
            signature.bind(*placed, **named)
        except TypeError as error:
            raise Mismatch(
                f"The metric {name_of(metric)}{signature} cannot be called as metric(example, prediction, trace=None): "
                f"{error}. Give its own parameters defaults, or bind them with functools.partial."
            ) from None
    return found


def require_result(
    value: Any, what: str, function: Callable[..., Any] | None = None, *, may_await: bool = False
) -> Any:
    """Return what a function gave; a generator is no result, nor is a coroutine unless it `may_await`.

    Raises:
        Mismatch: it is one; it is closed, so that Python does not warn of it as well.
    """
    if inspect.isawaitable(value) and may_await:
        return value
    if not (inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value)):
        return value
    if callable(close := getattr(value, "close", None)):
        close()
    given_by = what if function is None else f"{what} {name_of(function)}"
    raise Mismatch(
        f"The {given_by} gave a {type(value).__name__}; it must give its result at once, so run what it awaits, or "
        f"return a number."
    )


def score_in(value: Any, what: str, *, may_be_odd: bool = False) -> float | bool:
    """Return the number in what a metric or reward gave: a number, a bool, or what holds one as `score`.

    A number is whatever Python makes a float of (numpy's and torch's scalars, Decimal), but no text. A bool stays one.
    A reward `may_be_odd`: not finite, so that no attempt with it is the best, as in DSPy.

    Raises:
        Mismatch: there is none, or it is not finite.
    """
    score = _held_score(value)
    if isinstance(score, bool):
        return score
    if isinstance(score, str | bytes | bytearray) or not (hasattr(score, "__float__") or hasattr(score, "__index__")):
        held = "" if score is value else " as its score"
        raise Mismatch(f"The {what} gave a {type(score).__name__}{held}; a number or a bool is needed.")
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError, AttributeError, LookupError) as error:
        raise Mismatch(
            f"The {what} gave a {type(score).__name__} that is no number ({error}); a number or a bool is needed."
        ) from None
    if not math.isfinite(number) and not may_be_odd:
        raise Mismatch(f"The {what} gave {number}; a score must be finite, or no mean of scores is.")
    return number


def feedback_in(value: Any) -> str | None:
    """Return the feedback that GEPA's metrics give beside a score."""
    given = value.get("feedback") if isinstance(value, Mapping) else getattr(value, "feedback", None)
    return None if given is None else str(given)


def is_asynchronous(function: Any) -> bool:
    """Whether calling it gives a coroutine, as far as can be seen."""
    return any(map(inspect.iscoroutinefunction, (function, getattr(type(function), "__call__", None))))  # noqa: B004


def awaited(value: Awaitable[Any]) -> Any:
    """Return the result of what a plain caller got from an asynchronous function, on a loop of its own.

    Blocks. Where this thread runs a loop already, it is done in another thread.
    """

    async def result() -> Any:
        return await value

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(result())
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((asyncio.run(result()), None))
        except BaseException as error:  # it belongs to the thread that waits
            outcome.append((None, error))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="dspex-awaited")
    thread.start()
    thread.join()
    found, error = outcome[0]
    if error is not None:
        raise error
    return found


def name_of(function: Any) -> str:
    """Return the name of a function, of what a functools.partial calls, or of an object's class."""
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__name__", type(inner).__name__))


def require_arguments(function: Callable[..., Any], what: str, *names: str, may_await: bool = False) -> None:
    """Check that `function` can be called with these by position, and that it is asynchronous only where that is right.

    Raises:
        Mismatch: it cannot.
    """
    _require_callable(function, what, may_await=may_await)
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(*names)
    except TypeError as error:
        raise Mismatch(
            f"The {what} {name_of(function)}{signature} cannot be called with ({', '.join(names)}): {error}."
        ) from None


def _held_score(value: Any) -> Any:
    """Return `score` of what holds one; a dspy.Prediction without it says so by a KeyError or AttributeError."""
    try:
        return value["score"] if isinstance(value, Mapping) else getattr(value, "score", value)
    except (LookupError, AttributeError):
        return None


def _convention(parameters: Mapping[str, Parameter]) -> MetricParameters:
    every = list(parameters.values())
    ordered = [one for one in every if one.kind in _BY_POSITION]
    takes_rest = any(one.kind is Parameter.VAR_POSITIONAL for one in every)
    named = frozenset(one.name for one in every if one.kind in _BY_NAME).intersection(ROLES[2:])
    taken = _taken_by_position(ordered, takes_rest=takes_rest)
    lacking = {ROLES[at] for at, one in enumerate(ordered[:taken]) if one.default is Parameter.empty}
    lacking |= {name for name in named if parameters[name].default is Parameter.empty}
    rest = takes_rest and taken >= len(ordered)
    return MetricParameters(taken, rest, named, frozenset(lacking))


def _taken_by_position(ordered: Sequence[Parameter], *, takes_rest: bool) -> int:
    """Return how many roles go by position: two, the trace, and GEPA's two if the metric has a place for both."""
    if len(ordered) < 3 or not _takes(ordered[2], "trace"):
        return 2
    about = ordered[3:]
    if len(about) == 2 and all(_takes(one, role) for one, role in zip(about, ROLES[3:], strict=True)):
        return 5
    return 3


def _takes(parameter: Parameter, role: str) -> bool:
    """Whether a parameter in this role's place is for it: by its name, or because it has no value of its own."""
    if parameter.name in ROLES[2:]:
        return parameter.name == role
    return parameter.default is Parameter.empty or parameter.default is None


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return its signature, None if it has none. Modules of DSPy's (SemanticF1) take what their `forward` takes."""
    try:
        found = inspect.signature(function)
        kinds = {one.kind for one in found.parameters.values()}
        forward = getattr(type(function), "forward", None)  # of its class: DSPy warns of who looks at the object's own
        if kinds == {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} and callable(forward):
            return _bound(inspect.signature(forward))
    except (TypeError, ValueError):
        return None
    return found


def _bound(signature: inspect.Signature) -> inspect.Signature:
    """Return a method's signature without `self`."""
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _require_callable(function: Any, what: str, *, may_await: bool = False) -> None:
    if isinstance(function, type):
        raise Mismatch(
            f"The {what} {function.__name__} is a class: give an object of it, such as {function.__name__}()."
        )
    if not callable(function):
        raise Mismatch(f"The {what} is a {type(function).__name__}, which cannot be called.")
    if not may_await and is_asynchronous(function):
        raise Mismatch(f"The {what} {name_of(function)} is asynchronous; it must give its result at once.")
