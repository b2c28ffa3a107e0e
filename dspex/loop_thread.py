"""Run an event loop in a daemon thread, for any thread's coroutines.

It starts at its first use and is kept, so that clients which coroutines hold on to meet the same loop each time; it
ends with `stop`, or when the LoopThread is collected. A forked child makes its own.
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


class LoopThread:
    """Runs coroutines for threads; `ends_at_exit` stops the loop when the interpreter exits, before its owner does."""

    def __init__(self, name: str, *, ends_at_exit: bool = True) -> None:
        self._name = name
        self._ends_at_exit = ends_at_exit
        self._locks: dict[int, threading.Lock] = {}  # by process: one may be held where the host forks
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: weakref.finalize[Any, Any] | None = None
        self._owner = 0

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        """Start a coroutine in the caller's contextvars; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.running())

    def running(self) -> asyncio.AbstractEventLoop:
        """Return the loop, started.

        Raises:
            RuntimeError: the system gives no thread.
        """
        loop = self._loop
        if loop is not None and self._owner == os.getpid():
            return loop
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if self._loop is None or self._owner != os.getpid():
                self._loop = self._start()
                self._owner = os.getpid()
            return self._loop

    def stop(self) -> None:
        """Stop the loop; what still runs there is cancelled. The next use starts another."""
        self._loop, stop = None, self._stop
        if stop is not None:
            stop()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the thread of a stopped loop has ended, for no longer than that."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def rename(self, name: str) -> None:
        """Give the running thread another name."""
        if self._thread is not None:
            self._thread.name = name

    def _start(self) -> asyncio.AbstractEventLoop:
        loop, leaving = asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(target=_serve, args=(loop, leaving), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            loop.close()
            raise
        self._thread = thread
        self._stop = weakref.finalize(self, _stop, loop, leaving, os.getpid())
        self._stop.atexit = self._ends_at_exit
        return loop


def _serve(loop: asyncio.AbstractEventLoop, leaving: asyncio.Event) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(leaving.wait())  # a task at the root of all others: anyio looks for one
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, leaving: asyncio.Event, owner: int) -> None:
    """Runs in a finalizer: takes no lock (C11)."""
    if owner == os.getpid():
        with contextlib.suppress(RuntimeError):  # closed already
            loop.call_soon_threadsafe(leaving.set)
