"""A call as its caller sees it: the frame to send, the outcome to come, and the waiter that is woken for it.

The outcome is set once, under the pool's lock; waking comes after, outside it. A thread waits on a lock of its own. A
coroutine waits on a future of its loop; the engine wakes each loop once for a whole batch of calls.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .tickets import SessionUse, Ticket

if TYPE_CHECKING:
    from .streams import StreamBuffer

LoopBatch = dict[asyncio.AbstractEventLoop, list["Call"]]


class Call(Ticket):
    """One call of a caller; see `Ticket` for what the pool's state keeps in it."""

    __slots__ = (
        "cause",
        "context",
        "deadline",
        "error",
        "frame",
        "frame_end",
        "future",
        "is_durable",
        "is_ended",
        "lock",
        "loop",
        "stream",
        "timeout",
        "value",
        "worker_name",
    )

    def __init__(
        self,
        id: int,
        command: str,
        *,
        frame: bytes,
        packed: bytes,
        timeout: float,
        deadline: float,
        session: str | None = None,
        use: SessionUse = None,
        retries: int = 0,
        is_nested: bool = False,
        is_durable: bool = False,
    ) -> None:
        super().__init__(id, command, session=session, use=use, retries=retries, packed=packed, is_nested=is_nested)
        self.frame = frame
        self.frame_end = 0  # where its last byte stands in all that was handed to its worker
        self.timeout = timeout
        self.deadline = deadline
        self.is_durable = is_durable
        self.context = contextvars.copy_context()  # tools that it calls back run in it (C14)
        self.worker_name = ""
        self.is_ended = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.lock: threading.Lock | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[None] | None = None
        self.stream: StreamBuffer | None = None

    # -- set up by the caller, before it submits --

    def wait_in_thread(self) -> None:
        """Prepare to wait in this thread."""
        self.lock = threading.Lock()
        self.lock.acquire()

    def wait_in_loop(self) -> asyncio.Future[None]:
        """Prepare to wait in the running event loop, and give what to await."""
        self.loop = asyncio.get_running_loop()
        self.future = self.loop.create_future()
        return self.future

    # -- the end: under the pool's lock --

    def end(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Set the outcome; False if there is one already: the first wins (C7)."""
        if self.is_ended:
            return False
        self.value = value
        self.error = error
        self.is_ended = True
        return True

    # -- waking: outside every lock --

    def wake(self, loops: LoopBatch) -> None:
        """Wake a waiting thread now; add a waiting coroutine to its loop's batch."""
        if self.stream is not None:
            self.stream.finish()
        if self.lock is not None:
            self.lock.release()
        elif self.loop is not None:
            loops.setdefault(self.loop, []).append(self)

    def result(self) -> Any:
        """Give the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value

    @property
    def session_name(self) -> str:
        """The session's id as the caller gave it, without the client's name before it."""
        return (self.session or "").partition("/")[2]

    def remaining(self) -> float:
        """Seconds until the deadline; may be negative or infinite."""
        return self.deadline - time.monotonic()


def wake_all(calls: Iterable[Call]) -> None:
    """Wake whoever waits for these calls, each event loop once."""
    loops: LoopBatch = {}
    for call in calls:
        call.wake(loops)
    for loop, batch in loops.items():
        wake_loop(loop, batch)


def wake_loop(loop: asyncio.AbstractEventLoop, batch: list[Call]) -> None:
    try:
        loop.call_soon_threadsafe(_resolve, batch)
    except RuntimeError:
        pass  # the loop is closed: nobody is left to wake, and the slots are free already (C10)


def _resolve(batch: list[Call]) -> None:
    """In the loop: one cancelled future must not leave its neighbours pending for ever (C10)."""
    for call in batch:
        future = call.future
        if future is not None and not future.done():
            future.set_result(None)
