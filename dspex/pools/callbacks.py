"""A callback: a request of a worker to the host (a tool, a metric, a language model) while a call runs.

Handlers are registered by name on the supervisor; the pools know nothing of what they do. An async generator's items,
and those of an async iterator that an `async` function returns, are sent as they come. `callback_handlers` decides
when and where one runs: in the caller's contextvars, never on the engine's or the caller's thread (C14). A call that a
handler makes is *nested*: see `nesting`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import Malformed, messages
from dspex_worker.wire.messages import Kind
from dspex_worker.wire.shapes import CREDIT_MOST

from ..errors import DspexError, InvalidInput
from .call_errors import RAISED, describe_raised
from .nesting import context_within, is_nested

if TYPE_CHECKING:
    from .call import Call
    from .dispatcher import Dispatcher
    from .worker import Worker

CHUNKS_UNREAD_MOST = 16 * 1024 * 1024  # bytes that wait for one worker to read them before more chunks are made
READER_POLL = 0.05  # seconds between looks at whether it has
CLOSING = 1.0  # seconds that a cancelled coroutine has to end
Handler = Callable[["Callback"], Any]


class HandlerError(Exception):
    """What a handler in another process raised, as that process described it."""

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__(described.get("message"))
        self.described = described


class Callback:
    """One request of a worker. Handlers read `arguments`, and `outer`, the call that it belongs to."""

    def __init__(self, pool: Dispatcher, worker: Worker, outer: Call, message: messages.Message, size: int) -> None:
        _, self.id, name, arguments, meta = message
        self.pool = pool
        self.worker = worker
        self.outer = outer
        self.name: str = name
        self.arguments: dict[str, Any] = arguments
        self.size = size  # bytes of its frame
        self.is_cancelled = False
        self.is_over = False  # its handler has ended
        self.on_end: Callable[[Callback], None] = _nothing  # called once it is answered, or nobody waits for it
        self._limit = worker.frame_limit
        self._granted: int = meta.get("credit") or 0
        self._sent = 0
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_credit: asyncio.Event | None = None

    @property
    def deadline(self) -> float:
        """The outer call's deadline on `time.monotonic()`'s clock; may be infinite."""
        return self.outer.deadline

    @property
    def is_within_tool(self) -> bool:
        """Whether a tool made the outer call, in whatever pool: it may wait for this."""
        return is_nested(self.outer)

    def require(self, **kinds: type) -> None:
        """Check that these arguments are there, each of its type.

        Raises:
            InvalidInput: one is not.
        """
        for name, kind in kinds.items():
            given = self.arguments.get(name)
            if type(given) is not kind:
                found = type(given).__name__
                raise InvalidInput(f"{self.name!r} takes a {kind.__name__} as {name!r}, not {found}.", field=name)

    # -- the engine's thread --

    def cancel(self) -> None:
        """Cancel the handler: the worker does not wait for it any more."""
        self.is_cancelled = True
        self.worker.callbacks.pop(self.id, None)
        loop = self._loop
        if loop is None:
            self.on_end(self)
            return
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(self._cancel_on, loop)

    def grant(self, count: int) -> None:
        """Let it send `count` more chunks: its worker has room.

        Raises:
            Malformed: more than a worker may have coming.
        """
        self._granted += count
        if self._granted - self._sent > CREDIT_MOST:
            raise Malformed(f"it gave credit for over {CREDIT_MOST:,} chunks at once")
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake)

    # -- running it --

    def run(self, handler: Handler) -> None:
        """In a tool thread: run a plain handler and answer."""
        if self.is_cancelled:
            return
        try:
            value = context_within(self.pool, self.outer).run(handler, self)
        except BaseException as error:  # whatever a user's tool raises goes to the worker, also SystemExit
            self.fail(error)
            return
        self._answer(Kind.RESULT, value)

    def run_on(self, loop: asyncio.AbstractEventLoop, handler: Handler) -> None:
        """On the loop's thread: start an async handler."""
        self._loop = loop
        if self.is_cancelled:  # looked at after `_loop` is set: `cancel` does it the other way round
            self._done()
            return
        self._has_credit = asyncio.Event()
        self._task = loop.create_task(self._arun(handler), context=context_within(self.pool, self.outer))
        self._task.add_done_callback(lambda _: self._done())  # also of one that is cancelled before it begins

    def _cancel_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel its task, which keeps its place while it closes what it holds, unless it does not end at all."""
        if self._task is not None and not self.is_over:
            self._task.cancel()
            loop.call_later(CLOSING, self.on_end, self)

    async def _arun(self, handler: Handler) -> None:
        try:
            produced = handler(self)
            value = produced if isinstance(produced, AsyncIterator) else await produced
            if isinstance(value, AsyncIterator):
                await self._stream(value)
            else:
                self._answer(Kind.RESULT, value)
        except asyncio.CancelledError:
            pass  # nobody waits for it
        except BaseException as error:  # as in `run`
            self.fail(error)

    async def _stream(self, chunks: AsyncIterator[Any]) -> None:
        async with contextlib.aclosing(chunks):  # type: ignore[type-var]  # an async generator
            async for chunk in chunks:
                await self._wait_for_credit()
                await self._wait_for_reader()
                self.pool.post(self.worker, messages.write(Kind.CHUNK, self.id, chunk, limit=self._limit, root="chunk"))
        self._answer(Kind.END, None)

    async def _wait_for_credit(self) -> None:
        event = self._has_credit
        while self._granted <= self._sent and event is not None:
            event.clear()
            await event.wait()
        self._sent += 1

    async def _wait_for_reader(self) -> None:
        """Wait until its worker has read most of what is there: chunks may be large, and its streams many."""
        while self.worker.unread_answers() > CHUNKS_UNREAD_MOST and not self.is_cancelled:  # noqa: ASYNC110
            await asyncio.sleep(READER_POLL)  # its pipe wakes nobody here

    def _wake(self) -> None:
        if self._has_credit is not None:
            self._has_credit.set()

    def fail(self, error: BaseException) -> None:
        """Send the error; one of DSPex's comes out of the outer call as it is, if the worker passes it on."""
        described = error.described if isinstance(error, HandlerError) else describe_raised(error)
        if isinstance(error, DspexError):
            described["facts"][RAISED] = self.outer.note_raised(self.id, error)
        self._answer(Kind.ERROR, described)

    def _answer(self, kind: Kind, body: Any) -> None:
        self._done()
        if self.is_cancelled:
            return
        try:
            frame = messages.write(kind, self.id, body, None, limit=self._limit, root="result")
        except Exception as error:  # also of a value that another thread changes meanwhile
            frame = messages.write(Kind.ERROR, self.id, describe_raised(error), None)
        self.pool.post(self.worker, frame)

    @property
    def is_asynchronous(self) -> bool:
        """Whether its handler was begun on an event loop."""
        return self._loop is not None

    def _done(self) -> None:
        self.is_over = True
        self.worker.callbacks.pop(self.id, None)
        self.on_end(self)


def _nothing(request: Callback) -> None:
    """Do nothing: no handler has begun."""
