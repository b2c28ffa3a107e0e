"""Buffer the chunks of a streaming call between the engine and the one consumer that reads them.

Credit keeps the buffer small: the worker may send `CREDIT` chunks ahead and gets more as the consumer takes them, so a
slow consumer stops its own stream and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from dspex_worker.wire import Malformed

CREDIT = 16
END = object()


class StreamedCall(Protocol):
    """The call of a stream, as the stream sees it."""

    @property
    def value(self) -> Any: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def worker_name(self) -> str: ...
    def remaining(self) -> float: ...
    def result(self) -> Any: ...


class StreamPool(Protocol):
    """The pool of a stream's call, as the stream sees it."""

    def check_own_process(self) -> None: ...
    def expire(self, call: Any) -> None: ...
    def abandon(self, call: Any) -> None: ...
    def abandon_later(self, call: Any) -> None: ...


class StreamBuffer:
    """The chunks that were received and not yet taken. One consumer; `put` and `finish` come from another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._chunks: SimpleQueue[Any] = SimpleQueue()
        self._loop = loop
        self._event = asyncio.Event() if loop is not None else None
        self._is_signalled = False  # the loop has been woken, and has not looked yet
        self.received = 0  # chunks; written by the engine alone
        self._allowed = CREDIT  # written by the consumer alone

    def allow(self, count: int) -> None:
        """Let the worker send `count` more chunks; called before it is notified."""
        self._allowed += count

    def receive(self, chunk: Any) -> None:
        """Take a chunk from the worker.

        Raises:
            Malformed: it has sent more than it was allowed to, and would fill the memory here.
        """
        self.received += 1
        if self.received > self._allowed:
            raise Malformed("it sent a chunk without credit for it")
        self.put(chunk)

    def put(self, chunk: Any) -> None:
        self._chunks.put(chunk)
        self._signal()

    def finish(self) -> None:
        self.put(END)

    def take(self, timeout: float | None) -> tuple[bool, Any]:
        """Return (True, chunk) or, at the end, (False, None); blocks.

        Raises:
            TimeoutError: nothing came within `timeout` seconds.
        """
        try:
            return self._found(self._chunks.get(timeout=timeout))
        except Empty:
            raise TimeoutError from None

    async def atake(self) -> tuple[bool, Any]:
        """Return (True, chunk) or, at the end, (False, None)."""
        while True:
            try:
                return self._found(self._chunks.get_nowait())
            except Empty:
                pass
            if self._event is None:
                raise TypeError("this buffer was made for threads")
            self._event.clear()
            self._is_signalled = False
            if self._chunks.empty():
                await self._event.wait()

    def _found(self, chunk: Any) -> tuple[bool, Any]:
        if chunk is not END:
            return True, chunk
        self._chunks.put(END)  # whoever looks again finds the end again
        return False, None

    def _signal(self) -> None:
        if self._loop is None or self._event is None or self._is_signalled:
            return
        self._is_signalled = True
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            pass  # the loop is closed: its consumer is gone, and its finalizer gives the call up


class _BaseStream:
    """The common part of both kinds of stream: credit, the end, and giving up."""

    def __init__(
        self, call: StreamedCall, buffer: StreamBuffer, grant: Callable[[Any, int], None], pool: StreamPool
    ) -> None:
        self._call = call
        self._buffer = buffer
        self._grant = grant
        self._pool = pool
        self._taken = 0
        self._is_open = True

    @property
    def value(self) -> Any:
        """What the command returned, once all chunks are read."""
        return self._call.value

    @property
    def worker(self) -> str:
        """The worker that runs it, such as "dspy/2"; empty while it is queued."""
        return self._call.worker_name

    def _goes_on(self, has_chunk: bool) -> bool:
        """Count a chunk; at the end, raise the error of a call that failed."""
        if not has_chunk:
            self._is_open = False
            self._call.result()
            return False
        self._taken += 1
        if self._taken >= CREDIT // 2:
            self._grant(self._call, self._taken)
            self._taken = 0
        return True

    def _expire(self) -> None:
        """Raise the call's error; if it had ended well by then, what is left to read is here or about to come (C7)."""
        self._pool.expire(self._call)
        if self._call.error is not None:
            self._is_open = False
            self._call.result()

    def _give_up(self) -> None:
        if self._is_open:
            self._is_open = False
            self._pool.abandon(self._call)

    def __del__(self) -> None:
        # No lock may be taken here: the collector may run inside the pool's own critical section (C11).
        if getattr(self, "_is_open", False):
            self._is_open = False
            self._pool.abandon_later(self._call)


class Stream(_BaseStream, Iterator[Any]):
    """A streaming call's chunks for a thread; `close()` it, or leave its `with` block, to stop early."""

    def __next__(self) -> Any:
        if not self._is_open:
            raise StopIteration
        self._pool.check_own_process()
        try:
            has_chunk, chunk = self._take()
        except BaseException:  # Ctrl-C while waiting: nobody reads the rest
            self._give_up()
            raise
        if self._goes_on(has_chunk):
            return chunk
        raise StopIteration

    def close(self) -> None:
        """Stop: the call is cancelled, and its slot comes back."""
        self._give_up()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> tuple[bool, Any]:
        remaining = self._call.remaining()
        try:
            return self._buffer.take(None if remaining > 1e9 else max(0.0, remaining))
        except TimeoutError:
            self._expire()
            return self._buffer.take(None)


class AsyncStream(_BaseStream, AsyncIterator[Any]):
    """A streaming call's chunks for a coroutine; `await aclose()`, or leave its `async with` block, to stop early."""

    async def __anext__(self) -> Any:
        if not self._is_open:
            raise StopAsyncIteration
        self._pool.check_own_process()
        try:
            has_chunk, chunk = await self._take()
        except BaseException:  # CancelledError: nobody reads the rest
            self._give_up()
            raise
        if self._goes_on(has_chunk):
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop: the call is cancelled, and its slot comes back."""
        self._give_up()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _take(self) -> tuple[bool, Any]:
        remaining = self._call.remaining()
        try:
            async with asyncio.timeout(None if remaining > 1e9 else max(0.0, remaining)):
                return await self._buffer.atake()
        except TimeoutError:
            self._expire()
            return await self._buffer.atake()
