"""Call programs that await: with an event loop in the thread that runs the call. Any thread.

A module is called as DSPy's users call it: `forward` by a plain call; `aforward` when the host awaits, or when there is
nothing else. What a plain call gives to be awaited is awaited, and of a stream (`dspy.streamify`) the prediction at its
end is the result.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

import dspy

from .own_modules import method_of


def result_from(program: dspy.Module, arguments: Mapping[str, Any], *, awaits: bool = False) -> Any:
    """Call a program and return its result; blocks."""
    if _is_awaited(program, awaits=awaits):
        return asyncio.run(_awaited(program.acall(**arguments)))
    result = program(**arguments)
    if inspect.isawaitable(result):
        return asyncio.run(_awaited(result))
    return asyncio.run(_last(result)) if inspect.isasyncgen(result) else result


def _is_awaited(program: dspy.Module, *, awaits: bool) -> bool:
    if method_of(program, "aforward") is None:
        return False
    return awaits or method_of(program, "forward") is None


async def _awaited(result: Any) -> Any:
    value = await result
    return await _last(value) if inspect.isasyncgen(value) else value


async def _last(stream: Any) -> Any:
    """Return the prediction that ends a stream; where there is none, the last thing that came."""
    last = None
    async for item in stream:
        if isinstance(item, dspy.Prediction) or not isinstance(last, dspy.Prediction):
            last = item
    return last
