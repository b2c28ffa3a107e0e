"""Change a pool at the request of a control client. On the service's loop: nothing here blocks it.

A pool's own verbs wait in a thread of their caller; here they are begun, and looked at until they are done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from ..pools.pool import Pool
from . import request_fields
from .protocol import Verb
from .request_fields import Fields

LOOK = 0.02  # seconds between looks at a pool that recycles or drains


async def resize(pool: Pool, fields: Fields) -> bool:
    """Aim at `size` workers; return whether the pool stays closed, because it was drained."""
    pool.resize(request_fields.count(fields, "size"))
    return pool.is_drained


async def recycle(pool: Pool, fields: Fields) -> bool:
    """Replace every worker and wait for it; return whether the pool stays closed, because it was drained.

    Raises:
        TimeoutError: it took longer than `timeout`.
    """
    before = _generations(pool)
    with contextlib.suppress(TimeoutError):  # it goes on by itself
        pool.recycle(reload=request_fields.flag(fields, "reload"), timeout=0.0)
    await _wait(pool, fields, lambda: not before & _generations(pool), "replace its workers")
    return pool.is_drained


async def drain(pool: Pool, fields: Fields) -> None:
    """Take no new calls, and wait until none is running.

    Raises:
        TimeoutError: it took longer than `timeout`.
    """
    with contextlib.suppress(TimeoutError):
        pool.drain(timeout=0.0)
    await _wait(pool, fields, lambda: _is_idle(pool), "finish its calls")


async def resume(pool: Pool, fields: Fields) -> bool:
    """Take calls again after a drain; False if the pool was taking them."""
    return pool.resume()


async def forgive(pool: Pool, fields: Fields) -> bool:
    """End the quarantine of `digest`; False if there is none."""
    return pool.forgive(request_fields.text(fields, "digest"))


POOL_HANDLERS: Final[dict[str, Callable[[Pool, Fields], Awaitable[object]]]] = {
    Verb.RESIZE: resize,
    Verb.RECYCLE: recycle,
    Verb.DRAIN: drain,
    Verb.RESUME: resume,
    Verb.FORGIVE: forgive,
}


async def _wait(pool: Pool, fields: Fields, is_done: Callable[[], bool], what: str) -> None:
    timeout = request_fields.seconds(fields, "timeout")
    try:
        async with asyncio.timeout(timeout):
            while not is_done():  # noqa: ASYNC110 - a pool announces neither: its own verbs look again and again, too
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise TimeoutError(f"Pool {pool.name!r} did not {what} within {timeout:g} s; it goes on.") from None


def _generations(pool: Pool) -> set[int]:
    return {row["generation"] for row in pool.stats()["workers"]}


def _is_idle(pool: Pool) -> bool:
    stats = pool.stats()
    return not stats["queued"] and not any(row["running"] - row["abandoned"] for row in stats["workers"])
