"""Call a program by `forward`, or by `aforward` when the host awaits or there is nothing else. Any thread.

What a plain call gives to be awaited is awaited, and of a stream (`dspy.streamify`) the prediction at its end is the
result.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from ..code import class_sources
from .program_loop import ProgramLoop
from .user_modules import method_of

_OF_THE_SOURCE = frozenset({"__module__", "__qualname__", "__doc__", "__firstlineno__", class_sources.SOURCE})


def result_from(
    program: dspy.Module,
    arguments: Sequence[Any],
    inputs: Mapping[str, Any],
    *,
    loop: ProgramLoop,
    awaits: bool = False,
) -> Any:
    """Call a program and return its result; what it awaits, it awaits in its loop. Blocks."""
    if _is_awaited(program, awaits=awaits):
        return loop.result_of(program.acall(*arguments, **inputs))
    result = program(*arguments, **inputs)
    return loop.result_of(result) if inspect.isawaitable(result) or inspect.isasyncgen(result) else result


def take_plain_calls(program: dspy.Module, loop: ProgramLoop) -> None:
    """Give a module that has `aforward` alone a `forward` that awaits it: DSPy's optimizers call programs plainly.

    They copy them too, and show the source of their class to a model: so it is another class, of the same name.
    """
    if method_of(program, "forward") is not None or method_of(program, "aforward") is None:
        return

    def forward(self: Any, *arguments: Any, **inputs: Any) -> Any:
        return loop.result_of(self.aforward(*arguments, **inputs))

    kind: Any = type(program)
    named = {name: value for name, value in vars(kind).items() if name in _OF_THE_SOURCE}
    program.__class__ = type(kind)(kind.__name__, (kind,), {**named, "forward": forward})


def _is_awaited(program: dspy.Module, *, awaits: bool) -> bool:
    if method_of(program, "aforward") is None:
        return False
    return awaits or method_of(program, "forward") is None
