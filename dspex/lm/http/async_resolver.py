"""Look a host's addresses up for a task: the same lookups as `resolver`'s, awaited on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import TypeVar

from .resolver import AddressInfo, in_turns, literal, lookup

T = TypeVar("T")


async def aaddresses(host: str, port: int) -> list[AddressInfo]:
    """`addresses`, awaited; whoever waits bounds it."""
    found = literal(host, port)
    return found if found is not None else in_turns(await awaited(lookup(host, port)))


async def awaited(future: Future[T]) -> T:
    """Return a future's result on an event loop; cancelling the task leaves the future alone."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    def notify(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(notify)
    await done
    return future.result()
