"""Call programs as DSPy's users call them: `forward` by a plain call; `aforward` when the host awaits, or when there is
nothing else. Any thread.

What a plain call gives to be awaited is awaited, and of a stream (`dspy.streamify`) the prediction at its end is the
result.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from .program_loop import ProgramLoop
from .user_modules import method_of


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


def _is_awaited(program: dspy.Module, *, awaits: bool) -> bool:
    if method_of(program, "aforward") is None:
        return False
    return awaits or method_of(program, "forward") is None
