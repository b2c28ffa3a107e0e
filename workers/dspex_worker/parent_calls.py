"""Make callbacks: calls of running commands into the supervisor's process, and the waits for their answers.

Any thread of a command makes them; the leader delivers the answers. A wait needs no interrupt: cancelling its call puts
CANCELLED into its queue.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from .failure import Cancelled, Failure
from .frame_writer import FrameWriter
from .user_code import UserCode
from .wire import OverLimit, Unencodable, messages
from .wire.error_codec import read
from .wire.messages import Kind, Message

STREAM_CREDIT = 16  # chunks of a callback's stream that the supervisor may send ahead
CANCELLED = None  # what a wait gets instead of a message when its call is cancelled

Wait = SimpleQueue[Message | None]


class Bell:
    """Calls a function when its call is cancelled: a wait that waits for nothing else."""

    __slots__ = ("_ring",)

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring

    def put(self, _: None) -> None:
        self._ring()


class PendingCallbacks:
    """The callbacks of a worker whose answers are still to come, by their (even) ids."""

    def __init__(self, writer: FrameWriter) -> None:
        self.writer = writer
        self._waits: dict[int, Wait] = {}
        self._next_id = 2
        self._lock = threading.Lock()

    def start(self, wait: Wait, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> int:
        """Send a callback whose answers go into `wait`, and return its id.

        Raises:
            Unencodable, OverLimit: the arguments cannot be sent.
        """
        with self._lock:
            id = self._next_id
            self._next_id += 2
            self._waits[id] = wait
        try:
            frame, _, _ = messages.write_call(id, name, arguments, meta, limit=self.writer.limit)
        except (Unencodable, OverLimit):
            self._waits.pop(id, None)
            raise
        self.writer.write(frame)
        return id

    def stop(self, id: int) -> None:
        """Wait no longer; if no final answer came, the supervisor may stop working on it."""
        if self._waits.pop(id, None) is not None:
            self.writer.send(Kind.CANCEL, id)

    def deliver(self, answer: Message) -> None:
        """Hand an answer to the thread that waits for it, if one still does."""
        is_final = answer[0] != Kind.CHUNK
        wait = self._waits.pop(answer[1], None) if is_final else self._waits.get(answer[1])
        if wait is not None:
            wait.put(answer)


class ParentCalls:
    """The callbacks of one running call. `about_to_wait` is called by a thread that is going to block."""

    __slots__ = ("_call_id", "_pending", "_waits", "about_to_wait", "user_code", "writer")

    def __init__(
        self, call_id: int, user_code: UserCode, pending: PendingCallbacks, about_to_wait: Callable[[], None]
    ) -> None:
        self.user_code = user_code
        self.about_to_wait = about_to_wait
        self.writer = pending.writer
        self._call_id = call_id
        self._pending = pending
        self._waits: set[Wait | Bell] = set()

    def call(self, name: str, arguments: dict[str, Any], timeout: float | None) -> Any:
        """Make one, and return its result; see `Context.call_parent`."""
        give_up = None if timeout is None else time.monotonic() + timeout
        with self.user_code.outside(), self.started(name, arguments, {}) as (_, wait):
            self.about_to_wait()
            answer = _next(wait, give_up, name)
            if answer[0] == Kind.ERROR:
                raise _failure_of(answer[2])
            return answer[2]

    @contextlib.contextmanager
    def started(self, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> Generator[tuple[int, Wait]]:
        """Send one and yield (its id, where its answers come); leaving early cancels it."""
        wait: Wait = SimpleQueue()
        self._waits.add(wait)
        if self.user_code.is_cancelled:
            self._waits.discard(wait)
            raise Cancelled
        id = self._pending.start(wait, name, arguments, meta | {"for": self._call_id})
        try:
            yield id, wait
        finally:
            self._waits.discard(wait)
            self._pending.stop(id)

    @contextlib.contextmanager
    def told(self, ring: Callable[[], object]) -> Generator[None]:
        """Call `ring` if the call is cancelled within the block, from the leader's thread; at once if it has been."""
        bell = Bell(ring)
        self._waits.add(bell)
        try:
            if self.user_code.is_cancelled:
                ring()
            yield
        finally:
            self._waits.discard(bell)

    def cancel(self) -> None:
        """Wake every wait; the call is cancelled."""
        for wait in tuple(self._waits):
            wait.put(CANCELLED)


class ParentStream(Iterator[Any]):
    """The chunks of a callback, in order; `value` is its result once all are read. Close it to stop early."""

    def __init__(self, calls: ParentCalls, name: str, arguments: dict[str, Any]) -> None:
        self.value: Any = None
        self._calls = calls
        self._name = name
        self._consumed = 0
        self._started = calls.started(name, arguments, {"credit": STREAM_CREDIT})
        with calls.user_code.outside():
            self._id, self._wait = self._started.__enter__()
        self._is_open = True

    def __next__(self) -> Any:
        if not self._is_open:
            raise StopIteration
        try:
            answer = self._receive()
        except BaseException:  # an interrupt (cancel) while waiting: the parent need not go on
            self.close()
            raise
        if answer[0] == Kind.CHUNK:
            return answer[2]
        self.close()
        if answer[0] == Kind.ERROR:
            raise _failure_of(answer[2])
        self.value = answer[2]
        raise StopIteration

    def close(self) -> None:
        """Stop; the handler in the supervisor's process is cancelled if it has not ended."""
        if self._is_open:
            self._is_open = False
            self._started.__exit__(None, None, None)

    def __enter__(self) -> ParentStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self) -> Message:
        with self._calls.user_code.outside():
            if self._wait.empty():
                self._calls.about_to_wait()
            answer = _next(self._wait, None, self._name)
            if answer[0] == Kind.CHUNK:
                self._grant_credit()
            return answer

    def _grant_credit(self) -> None:
        self._consumed += 1
        if self._consumed >= STREAM_CREDIT // 2:
            self._calls.writer.send(Kind.CREDIT, self._id, self._consumed)
            self._consumed = 0


def _failure_of(described: object) -> Failure:
    """Return the exception for an ERROR message's description."""
    found = read(described)
    return Failure(found.name, found.message, **found.facts)


def _next(wait: Wait, give_up: float | None, name: str) -> Message:
    try:
        answer = wait.get(timeout=None if give_up is None else max(0.0, give_up - time.monotonic()))
    except Empty:
        raise TimeoutError(f"the supervisor did not answer {name!r} in time") from None
    if answer is None:  # CANCELLED
        raise Cancelled
    return answer
