"""`MappedRows`: run the blocking calls of a map's rows so that they can be cancelled.

A native call of a row is awaited on an event loop beside it: whoever leaves the map cancels it there, and its
connection is closed. A worker call of a row is cancelled by the flag itself (`worker_route`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, TypeVar

from ...cancel_flag import CancelFlag, cancelled_by
from ...errors import CallCancelled

T = TypeVar("T")
_current: ContextVar[MappedRows | None] = ContextVar("dspex_mapped_rows", default=None)


class MappedRows:
    """The rows of one map, which are cancelled together."""

    def __init__(self) -> None:
        from ...loop_thread import LoopThread  # here: every prediction asks for its row, and asyncio loads slowly

        self._flag = CancelFlag()
        self._loop = LoopThread("dspex-map-loop")

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call in the thread of a row.

        Raises:
            CallCancelled: the map was left meanwhile.
        """
        if self._flag.is_set:
            call.close()
            raise _cancelled()
        future: concurrent.futures.Future[T] = self._loop.submit(call)
        take_back = self._flag.on_set(lambda: _cancel(future))
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise _cancelled() from None
        finally:
            take_back()

    @contextlib.contextmanager
    def row(self) -> Generator[None]:
        """Let what the block calls be cancelled with the map."""
        token = _current.set(self)
        try:
            with cancelled_by(self._flag):
                yield
        finally:
            _current.reset(token)

    def cancel(self) -> None:
        """Cancel all rows that run."""
        self._flag.set()

    def close(self) -> None:
        """End the loop, and close its connections."""
        self._loop.stop()


def current_row() -> MappedRows | None:
    """Return the map of whose rows this thread runs one."""
    return _current.get()


def _cancelled() -> CallCancelled:
    return CallCancelled("The row was cancelled: whoever read the map's rows has left it.")


def _cancel(future: concurrent.futures.Future[Any]) -> None:
    future.cancel()
