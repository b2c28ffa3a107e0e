"""A call as its caller sees it: the frame to send, its outcome, and the waiter to wake.

The outcome is set once, under the pool's lock; waking comes after, outside it. A thread waits on a lock of its own. A
coroutine waits on a future of its loop, which its loop batch wakes (see `loop_batching`).
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .call_client import CallClient
from .loop_batching import LoopBatch, LoopBatches
from .state.records import CallRecord, SessionUse

if TYPE_CHECKING:
    from ..errors import DspexError
    from ..spans import CallSpan
    from .streams import StreamBuffer

RAISED_MOST = 64  # errors of callbacks that a call keeps: an optimizer's may fail thousands of times

FAR = 1e9  # seconds: a timeout beyond is none

next_id = itertools.count(1, 2).__next__  # of requests; odd: the supervisor's side of the wire


class Call(CallRecord):
    """One call of a caller; see `CallRecord` for what the pool's state keeps in it."""

    __slots__ = (
        "arguments_end",
        "arguments_start",
        "cause",
        "client",
        "context",
        "deadline",
        "error",
        "frame",
        "frame_end",
        "future",
        "is_durable",
        "is_ended",
        "is_trusted",
        "keeps_packed",
        "lock",
        "loop",
        "loop_batch",
        "made_at",
        "raised",
        "sent_at",
        "span",
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
        arguments_start: int,
        arguments_end: int,
        timeout: float,
        made_at: float,
        deadline: float,
        session: str | None = None,
        use: SessionUse = None,
        retries: int = 0,
        is_nested: bool = False,
        is_durable: bool = False,
        is_trusted: bool = True,
        client: CallClient | None = None,
    ) -> None:
        share = "" if client is None else client.name
        super().__init__(id, command, session=session, use=use, retries=retries, is_nested=is_nested, share=share)
        self.client = client
        self.frame = frame
        self.arguments_start = arguments_start  # in the frame: a queued call holds its arguments once
        self.arguments_end = arguments_end
        self.frame_end = 0  # where its last byte stands in all that was handed to its worker
        self.timeout = timeout
        self.made_at = made_at
        self.deadline = deadline
        self.is_durable = is_durable
        self.is_trusted = is_trusted  # made by this process itself, not for a client of its control socket
        self.context = contextvars.copy_context()  # tools that it calls back run in it (C14)
        self.worker_name = ""
        self.sent_at = 0.0  # to its last worker; noted where the pool's calls are tallied, or it has a span
        self.span: CallSpan | None = None
        self.is_ended = False
        self.keeps_packed = False  # large values of it only travel through: see `wire.Packed`
        self.value: Any = None
        self.error: BaseException | None = None
        self.lock: threading.Lock | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[None] | None = None
        self.loop_batch: LoopBatch | None = None
        self.stream: StreamBuffer | None = None
        self.raised: dict[int, DspexError] | None = None  # by its callbacks, here in the host

    def arguments(self) -> bytes:
        return self.frame[self.arguments_start : self.arguments_end]

    # -- set up by the caller, before it submits --

    def wait_in_thread(self) -> None:
        """Prepare to wait in this thread."""
        self.lock = threading.Lock()
        self.lock.acquire()

    def wait_in_loop(self, loop_batches: LoopBatches) -> asyncio.Future[None]:
        """Prepare to wait in the running event loop, and return what to await."""
        loop = self.loop = asyncio.get_running_loop()
        self.loop_batch = loop_batches.of(loop)
        self.future = loop.create_future()
        return self.future

    def wait(self) -> bool:
        """Wait in this thread until the end; False if the deadline came first."""
        remaining = self.deadline - time.monotonic()
        lock = self.lock
        return lock is None or lock.acquire(timeout=-1 if remaining > FAR else max(0.0, remaining))

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

    def wake(self) -> None:
        """Wake the call's waiter."""
        if self.lock is not None:
            self.lock.release()
        elif self.loop_batch is not None and self.loop is not None:
            self.loop_batch.wake(self, self.loop)
        elif self.stream is not None:
            self.stream.finish()

    def result(self) -> Any:
        """Return the value, or raise the error."""
        error = self.error
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del self, error  # the traceback holds this frame: a cycle would keep the call's bytes until a collection

    def note_raised(self, id: int, error: DspexError) -> int:
        """Keep an error that a callback raised, in case the worker passes it on; return its key."""
        raised = self.raised
        if raised is None:
            raised = self.raised = {}
        while len(raised) >= RAISED_MOST:
            raised.pop(next(iter(raised)), None)
        raised[id] = error
        return id

    @property
    def session_name(self) -> str:
        """The session's id as the caller gave it, without the client's name before it."""
        return (self.session or "").partition("/")[2]

    def remaining(self) -> float:
        """Seconds until the deadline; may be negative or infinite."""
        return self.deadline - time.monotonic()


def wake_all(calls: Iterable[Call]) -> None:
    """Wake the waiters of these calls."""
    for call in calls:
        call.wake()
