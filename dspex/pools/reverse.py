"""Reverse calls: what a worker asks of the host's process (a tool, a metric, a language model) while a call runs.

Handlers are registered by name on the supervisor; the pools know nothing of what they do. A plain function runs in a
bounded set of daemon threads, an `async` function or async generator on one event loop of its own; both in the
caller's contextvars, never on the engine's or the caller's thread (C14). A call that a handler makes is *nested*: see
`outer_calls`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextvars import Context, ContextVar
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import OverLimit, Unencodable, messages
from dspex_worker.wire.messages import Kind

from ..errors import DspexError, LMError, UnknownName
from .remote import RAISED

if TYPE_CHECKING:
    from .calls import Call
    from .desk import Desk
    from .worker import Worker

THREADS = 32  # plain handlers at once; what tools led to gets threads beyond it, or they could wait for each other
Handler = Callable[["ReverseCall"], Any]

_outer: ContextVar[tuple[Desk, Call] | None] = ContextVar("dspex_outer_call", default=None)


def outer_calls(desk: Desk) -> list[Call]:
    """Give the pool's calls that wait for what is done here, the nearest first: a tool of theirs led here.

    It may have done so by way of another pool. A task or thread that a tool left behind, with the tool's contextvars,
    is nobody's any more once the tool's call has ended.
    """
    calls, link = [], _outer.get()
    while link is not None:
        if link[0] is desk and not link[1].is_ended:
            calls.append(link[1])
        link = link[1].context.get(_outer)
    return calls


class ReverseCall:
    """One request of a worker. Handlers read `arguments`, and `outer`, the call that it belongs to."""

    def __init__(self, pool: Desk, worker: Worker, outer: Call, id: int, name: str, arguments: Any, meta: Any) -> None:
        self.pool = pool
        self.worker = worker
        self.outer = outer
        self.id = id
        self.name = name
        self.arguments: dict[str, Any] = arguments
        self.is_cancelled = False
        self._credit: int = meta.get("credit") or 0
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
        return self.outer.context.get(_outer) is not None

    def context(self) -> Context:
        """The caller's contextvars, with this as the outer call of whatever is called in them."""
        context = self.outer.context.copy()
        context.run(_outer.set, (self.pool, self.outer))
        return context

    # -- the engine's thread --

    def cancel(self) -> None:
        """Its worker does not wait for it any more."""
        self.is_cancelled = True
        task, loop = self._task, self._loop
        if task is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(task.cancel)

    def grant(self, count: int) -> None:
        """Its worker can take `count` more chunks."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._add_credit, count)

    # -- running it --

    def run(self, handler: Handler) -> None:
        """In a tool thread: run a plain handler and answer."""
        try:
            value = self.context().run(handler, self)
        except BaseException as error:  # whatever a user's tool raises is the worker's to hear, also SystemExit
            self._fail(error)
            return
        self._answer(Kind.RESULT, value)

    def run_on(self, loop: asyncio.AbstractEventLoop, handler: Handler) -> None:
        """On the loop's thread: start an async handler."""
        if self.is_cancelled:
            return
        self._loop = loop
        self._has_credit = asyncio.Event()
        self._task = loop.create_task(self._arun(handler), context=self.context())

    async def _arun(self, handler: Handler) -> None:
        try:
            produced = handler(self)
            if isinstance(produced, AsyncIterator):
                await self._stream(produced)
            else:
                self._answer(Kind.RESULT, await produced)
        except asyncio.CancelledError:
            self._done()
        except BaseException as error:  # as in `run`
            self._fail(error)

    async def _stream(self, chunks: AsyncIterator[Any]) -> None:
        async with contextlib.aclosing(chunks):  # type: ignore[type-var]  # an async generator
            async for chunk in chunks:
                await self._wait_for_credit()
                self.pool.post(self.worker, messages.write(Kind.CHUNK, self.id, chunk, root="chunk"))
        self._answer(Kind.END, None)

    async def _wait_for_credit(self) -> None:
        event = self._has_credit
        while self._credit <= 0 and event is not None:
            event.clear()
            await event.wait()
        self._credit -= 1

    def _add_credit(self, count: int) -> None:
        self._credit += count
        if self._has_credit is not None:
            self._has_credit.set()

    def _fail(self, error: BaseException) -> None:
        """Tell the worker; an error of DSPex's comes out of the outer call as it is, if the worker passes it on."""
        described = _describe(error)
        if isinstance(error, DspexError):
            described["facts"][RAISED] = self.outer.note_raised(self.id, error)
        self._answer(Kind.ERROR, described)

    def _answer(self, kind: Kind, body: Any) -> None:
        self._done()
        if self.is_cancelled:
            return
        try:
            frame = messages.write(kind, self.id, body, None, root="result")
        except (Unencodable, OverLimit) as error:
            frame = messages.write(Kind.ERROR, self.id, _describe(error), None)
        self.pool.post(self.worker, frame)

    def _done(self) -> None:
        self.worker.reverse.pop(self.id, None)


class Handlers:
    """The handlers of one supervisor, and the threads and the loop that run them."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def register(self, name: str, handler: Handler) -> None:
        """Answer the workers' reverse calls `name` with `handler(request)`."""
        self._handlers[name] = handler

    def begin(self, request: ReverseCall) -> None:
        """Have a request handled; called by the engine, returns at once."""
        try:
            self._begin(request)
        except RuntimeError as error:  # no thread can be started: the worker's to hear, and no reason to end the engine
            request._fail(error)

    def _begin(self, request: ReverseCall) -> None:
        handler = self._handlers.get(request.name)
        if handler is None:
            request._answer(Kind.ERROR, _describe(UnknownName("handler", request.name, self._handlers)))
        elif inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
            loop = self._running_loop()
            loop.call_soon_threadsafe(request.run_on, loop, handler)
        elif request.is_within_tool:
            threading.Thread(target=request.run, args=(handler,), name="dspex-nested-tool", daemon=True).start()
        else:
            self._run_in_thread(lambda: request.run(handler))

    def stop(self) -> None:
        """Let the threads end as they become idle, and stop the loop; what still runs there is cancelled."""
        with self._lock:
            threads, self._threads = self._threads, 0
        for _ in range(threads):
            self._todo.put(None)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def _run_in_thread(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._busy += 1
            if self._busy > self._threads and self._threads < THREADS:
                self._start_thread()
        self._todo.put(job)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"dspex-tool-{self._threads + 1}", daemon=True).start()
            self._threads += 1
        except RuntimeError:
            if not self._threads:  # else the job waits for one that is there
                self._busy -= 1
                raise

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            try:
                job()
            finally:
                with self._lock:
                    self._busy -= 1

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            try:
                threading.Thread(target=_run_loop, args=(loop,), name="dspex-services", daemon=True).start()
            except RuntimeError:
                loop.close()
                raise
            self._loop = loop
        return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
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


def _describe(error: BaseException) -> dict[str, Any]:
    """What the worker hears: the class, the text, and DSPex's facts; the host's traceback for the user's own errors."""
    facts: dict[str, Any] = {}
    if isinstance(error, LMError):
        names = ("code", "model", "provider", "provider_code", "status", "request_id", "retry_after")
        facts = {name: getattr(error, name) for name in names}
        text = error.message
    else:
        text = _text_of(error)
    own = isinstance(error, DspexError)
    return {
        "kind": type(error).__name__,
        "type": type(error).__name__,
        "message": text.encode("utf-8", "backslashreplace").decode()[:8192],
        "traceback": "" if own else _traceback_of(error)[-16384:],
        "facts": facts,
    }


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as worse:  # a user's __str__ may raise anything, and the worker must hear all the same
        return f"<its text could not be made: {type(worse).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode()
    except BaseException as worse:  # as above: __str__ of a cause, a source file that cannot be read
        return f"<its traceback could not be made: {type(worse).__name__}>"
