"""Remember the event loop of who awaits a job, for asynchronous metrics and tools: the job itself runs in a thread."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from ..pools.callbacks import Callback

_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("dspex_caller_loop", default=None)


@contextmanager
def awaited_on(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Let calls that are begun in the block have their asynchronous functions run on this loop."""
    token = _loop.set(loop)
    try:
        yield
    finally:
        _loop.reset(token)


def loop_of(request: Callback) -> asyncio.AbstractEventLoop | None:
    """Return the running loop of the request's caller, None if it waits in a thread."""
    loop = request.outer.loop or _loop.get()
    return loop if loop is not None and loop.is_running() else None
