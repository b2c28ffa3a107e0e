"""A private event loop in a thread: where `run` awaits what can only be awaited, or must be cancellable.

A pipeline makes one at its first need and keeps it, so that clients which async steps hold on to meet the same loop in
every run. It ends when the pipeline is collected. A forked child makes its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine
from typing import Any


class PrivateLoop:
    """Runs coroutines for threads."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}  # by process: one may be held where the host forks
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner = 0

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        """Start it in the caller's contextvars; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.running())

    def running(self) -> asyncio.AbstractEventLoop:
        """Give the loop, started."""
        if self._loop is None or self._owner != os.getpid():
            with self._locks.setdefault(os.getpid(), threading.Lock()):
                if self._loop is None or self._owner != os.getpid():
                    self._loop = self._start()
                    self._owner = os.getpid()
        return self._loop

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=_serve, args=(loop,), name="dspex-pipeline-loop", daemon=True).start()
        weakref.finalize(self, _stop, loop, os.getpid())
        return loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, owner: int) -> None:
    """Runs in a finalizer: takes no lock (C11)."""
    if owner == os.getpid():
        with contextlib.suppress(RuntimeError):  # closed already
            loop.call_soon_threadsafe(loop.stop)
