"""Tell which inputs a user's method takes, and place them: by name where it can be, else by position. Pure.

Inputs come by name. What a method takes by position alone is placed here, and so is the rest that a `*name` takes (a
list under that name).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def positions(taken: inspect.Signature | None) -> tuple[list[str], str | None]:
    """Return the names of what may be given by position, in order, and the name of the rest, if it takes any number."""
    parameters = [] if taken is None else list(taken.parameters.values())
    rest = next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), None)
    return [one.name for one in parameters if one.kind in _BY_POSITION], rest


def placed(taken: inspect.Signature | None, inputs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return inputs as a method takes them."""
    if taken is None:
        return [], dict(inputs)
    names, rest = positions(taken)
    only = [name for name in names if taken.parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY]
    more = inputs.get(rest) if rest is not None else None
    before = names if isinstance(more, list | tuple) and more else only
    first: list[Any] = []
    for name in before:
        if name not in inputs:  # it has a default, or the call fails as it should
            break
        first.append(inputs[name])
    else:
        if isinstance(more, list | tuple):
            return [*first, *more], {name: value for name, value in inputs.items() if name not in {*before, rest}}
    return first, {name: value for name, value in inputs.items() if name not in before[: len(first)]}
