"""Call programs that await: with an event loop in the thread that runs the call. Any thread.

A module is called as DSPy's users call it: `forward` by a plain call; `aforward` when the host awaits, or when there is
nothing else. What a plain call gives to be awaited is awaited, and of a stream (`dspy.streamify`) the prediction at its
end is the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from ..failure import Failure
from .call_context import running
from .own_modules import method_of


def result_from(
    program: dspy.Module, arguments: Sequence[Any], inputs: Mapping[str, Any], *, awaits: bool = False
) -> Any:
    """Call a program and return its result; blocks."""
    if _is_awaited(program, awaits=awaits):
        return _run(program.acall(*arguments, **inputs))
    result = program(*arguments, **inputs)
    return _run(result) if inspect.isawaitable(result) or inspect.isasyncgen(result) else result


def _is_awaited(program: dspy.Module, *, awaits: bool) -> bool:
    if method_of(program, "aforward") is None:
        return False
    return awaits or method_of(program, "forward") is None


def _run(result: Any) -> Any:
    return asyncio.run(_heeding_cancel(result))


async def _heeding_cancel(result: Any) -> Any:
    """Wait for what the program awaits, and leave it when the caller has gone: no interrupt reaches a waiting loop."""
    loop, work = asyncio.get_running_loop(), asyncio.ensure_future(_settled(result))

    def leave() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(work.cancel)

    context = running()
    with context.when_cancelled(leave):
        try:
            return await work
        except asyncio.CancelledError:
            context.check_cancelled()
            raise


async def _settled(result: Any) -> Any:
    value = result if inspect.isasyncgen(result) else await result
    return await _last(value) if inspect.isasyncgen(value) else value


async def _last(stream: Any) -> Any:
    """Return the prediction that ends a stream.

    Raises:
        Failure: InvalidReturn, when none came: whatever else it gives can be read only where it was made.
    """
    last = None
    async for item in stream:
        last = item if isinstance(item, dspy.Prediction) else last
    if last is None:
        name = getattr(stream, "__qualname__", type(stream).__name__)
        raise Failure("InvalidReturn", f"{name} returned a stream without a dspy.Prediction at its end.")
    return last
