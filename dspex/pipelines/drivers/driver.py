"""`Driver`: what a pipeline run awaits. It blocks a thread (`thread_driver`) or awaits on a loop (`task_driver`).

The logic in `core/` is written once, as coroutines that await nothing but a driver.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...cancel_flag import CancelFlag

Branch = Callable[["Driver"], Coroutine[Any, Any, Any]]


class Expired(Exception):
    """The deadline passed; the step turns it into its own error."""


@dataclass(frozen=True, slots=True)
class BranchEnd:
    """How a branch ended: a value, an error, or cancelled (both None). `rank` orders the errors in time."""

    value: Any = None
    error: BaseException | None = None
    rank: int = 0
    is_cancelled: bool = False


class Driver(Protocol):
    """The interface of a driver. `cancel` is set when the run, or this branch, is not wanted any more."""

    @property
    def cancel(self) -> CancelFlag: ...

    def check(self) -> None:
        """Raise CallCancelled if the run, or this branch, was cancelled."""

    def close(self) -> None:
        """End the run: release its threads."""

    async def call(self, function: Callable[[], Any], deadline: float) -> Any:
        """Call a user's function, plain or async, and return its value; Expired when the deadline comes first."""

    async def do(
        self, blocking: Callable[[], Any], awaiting: Callable[[], Awaitable[Any]], *, heeds_cancel: bool
    ) -> Any:
        """Do what has a blocking and an async form, and its own deadline; `heeds_cancel`: the former heeds `cancel`."""

    async def gather(self, jobs: Sequence[Branch], *, limit: int, grace: float) -> list[BranchEnd]:
        """Run jobs at the same time, `limit` at most; the first error cancels the others and waits `grace` for them."""
        ...


def is_cancellation(error: BaseException) -> bool:
    """Return whether an error means that somebody gave up: never retried, never handled by a fallback (P7)."""
    from ...errors import CallCancelled

    return isinstance(error, CallCancelled | asyncio.CancelledError | concurrent.futures.CancelledError)


def settle(future: Any, value: Any, error: BaseException | None) -> None:
    """Give a future its outcome, unless it was given up meanwhile."""
    try:
        if future.done():
            return
        if isinstance(error, StopIteration):  # a future cannot hold it
            future.set_exception(RuntimeError(f"the step raised {error!r}"))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except concurrent.futures.InvalidStateError:
        pass  # given up in the meantime


def innermost(function: Any) -> Any:
    """Return the function inside of partials."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    return function


def left(deadline: float) -> float | None:
    """Return the seconds until the deadline; None if there is none."""
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())
