"""A call of DSPy's as a stream, as `dspy.streamify` makes it, on a thread of anyio's; only DSPy's side imports this."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import dspy


def streamed(ask: Callable[[], Any]) -> Any:
    """What the call returns, when whoever reads its stream has taken all of it."""

    async def run() -> Any:
        with dspy.context(send_stream=_Taken(), stream_listeners=[]):
            return await anyio.to_thread.run_sync(ask)

    return asyncio.run(run())


class _Taken:
    async def send(self, chunk: Any) -> None:
        """Take it."""
