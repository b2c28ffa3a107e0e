"""Make steps of other steps: `parallel`, `conditional`, `map_each`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...errors import SettingsError
from ..core.parameters import Condition
from ..core.step import Step, checked_policy, names_of
from .composite_steps import GRACE, IN_FLIGHT, ConditionalStep, MapStep, ParallelStep
from .step_factories import as_step, fallback_step


def parallel(
    steps: Sequence[Any],
    *,
    into: str | None = None,
    name: str | None = None,
    when: Callable[..., Any] | str | None = None,
    timeout: float | None = None,
    retry: int | None = None,
    fallback: Any = None,
    max_in_flight: int = IN_FLIGHT,
    cancel_grace: float = GRACE,
) -> Step:
    """Return a step whose branches run at the same time, each on the state as it is before them.

    With `into`, its value is the list of the branches' values, in the branches' order. Without, what they write is
    merged, and no two may write the same name. A list among the steps is a branch of several steps. The first branch
    that fails cancels the others, which get `cancel_grace` seconds to end.

    Raises:
        SettingsError: there is no branch, or a setting is out of range.
    """
    if isinstance(steps, str | bytes | Mapping) or not isinstance(steps, Iterable):
        raise SettingsError(f"dspex.parallel is made of a list of steps, not of a {type(steps).__name__}.")
    branches = tuple(map(as_step, steps))
    if not branches:
        raise SettingsError("dspex.parallel needs at least one step.")
    policy = checked_policy(when=when, timeout=timeout, retry=retry, fallback=fallback_step(fallback, into=into))
    limit, grace = _checked_limit(max_in_flight), _checked_grace(cancel_grace)
    return ParallelStep(name=name, policy=policy, into=into, branches=branches, max_in_flight=limit, cancel_grace=grace)


def conditional(
    predicate: Callable[..., Any] | str,
    then: Any,
    otherwise: Any = None,
    *,
    into: str | None = None,
    name: str | None = None,
    timeout: float | None = None,
    fallback: Any = None,
) -> Step:
    """Return a step that runs `then` if the predicate of the state holds, else `otherwise`, if there is one.

    Both are steps, functions, or lists of steps.
    """
    policy = checked_policy(timeout=timeout, fallback=fallback_step(fallback, into=into))
    branches = tuple(as_step(step) for step in (then, otherwise) if step is not None)
    return ConditionalStep(name=name, policy=policy, into=into, condition=Condition.of(predicate), branches=branches)


def map_each(
    field: str,
    step: Any,
    *,
    into: str,
    item: str = "item",
    name: str | None = None,
    when: Callable[..., Any] | str | None = None,
    timeout: float | None = None,
    fallback: Any = None,
    max_in_flight: int = 8,
    cancel_grace: float = GRACE,
) -> Step:
    """Return a step that runs `step` for each item of the list `field`, and writes the list of its values to `into`.

    The step reads the item under the name `item`, beside the rest of the state. The first item that fails cancels the
    others.
    """
    if into is None:  # pyright: ignore[reportUnnecessaryComparison] - from callers without a type checker
        raise SettingsError("dspex.map_each needs into=, the name that the list of values is written to.", key="into")
    names_of((field,), "field")
    names_of((item,), "item")
    policy = checked_policy(when=when, timeout=timeout, fallback=fallback_step(fallback, into=into))
    limit, grace = _checked_limit(max_in_flight), _checked_grace(cancel_grace)
    return MapStep(
        name=name,
        policy=policy,
        into=into,
        field=field,
        item=item,
        each=as_step(step),
        max_in_flight=limit,
        cancel_grace=grace,
    )


def _checked_limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise SettingsError(f"max_in_flight is {limit!r}; it is a number, 1 or more.", key="max_in_flight")
    return limit


def _checked_grace(grace: float) -> float:
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not grace >= 0:
        raise SettingsError(f"cancel_grace is {grace!r}; it is a span in seconds, 0 or more.", key="cancel_grace")
    return grace
