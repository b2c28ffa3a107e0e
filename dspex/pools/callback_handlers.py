"""Run the host's handlers for workers' callbacks.

Each pool has its own threads, its own event loop and its own bounds, so that what hangs in one holds up no other. A
plain function runs in a daemon thread, an `async` function or async generator on the pool's loop.
"""

from __future__ import annotations

import inspect
import resource
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from ..errors import DspexError, TooManyCallbacks, TooManyToolsLeft, UnknownName
from ..events import Bus, Name
from ..loop_thread import LoopThread
from . import worker as workers
from .callback_limits import CallbackAdmission, CallbackLimits
from .callbacks import Callback, Handler
from .tool_threads import ToolThreads

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

LEFT_TASKS_MOST = 1024  # asynchronous handlers of one pool that do not end with their calls
ENDLESS = 2**20  # descriptors, where the system names no limit
QUIET = 1.0  # seconds between events of refusals in one pool; each says how many there were

__all__ = ["CallbackHandlers", "CallbackRunner", "Handler"]


class CallbackHandlers:
    """The handlers of one supervisor, by name, and the runner of each pool's callbacks."""

    def __init__(self, limits: CallbackLimits | None = None) -> None:
        self._handlers: dict[str, Handler] = {}
        self._of_pools: list[CallbackRunner] = []
        self._limits = limits

    def register(self, name: str, handler: Handler) -> None:
        """Answer the workers' callbacks `name` with `handler(request)`."""
        self._handlers[name] = handler

    def find(self, name: str) -> Handler:
        """Return the handler.

        Raises:
            UnknownName: there is none.
        """
        try:
            return self._handlers[name]
        except KeyError:
            raise UnknownName("handler", name, self._handlers) from None

    def of_pool(self, dispatcher: Dispatcher, bus: Bus) -> CallbackRunner:
        """Return the runner of a pool's callbacks."""
        made = CallbackRunner(dispatcher.name, self, bus)
        self._of_pools.append(made)
        return made

    def limits(self) -> CallbackLimits:
        """The callbacks that each pool may have at once."""
        if self._limits is None:
            descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            many = descriptors if descriptors != resource.RLIM_INFINITY else ENDLESS
            self._limits = CallbackLimits.of_host(many, len(self._of_pools))
        return self._limits

    def stop(self) -> None:
        """Let the threads end as they become idle, and stop the loops; what still runs there is cancelled."""
        for runner in self._of_pools:
            runner.stop()


class CallbackRunner:
    """Runs the callbacks of one pool. Any thread; `begin` is the engine's."""

    def __init__(self, pool: str, handlers: CallbackHandlers, bus: Bus) -> None:
        self._pool = pool
        self._handlers = handlers
        self._bus = bus
        self._admission: CallbackAdmission | None = None  # made at the first request: then the other pools are known
        self._threads = ToolThreads(pool, self._report_left)
        self._loop = LoopThread("dspex-callbacks", ends_at_exit=False)
        self._turns: deque[Callback] = deque()  # whose turn has come
        self._starting = threading.Lock()
        self._left: set[Callback] = set()  # asynchronous ones that go on though their calls have ended
        self._left_lock = threading.Lock()
        self._refused = 0  # since the last event
        self._reported_at = 0.0

    def begin(self, request: Callback) -> None:
        """Start a request, now or in its turn; returns at once."""
        admission = self._admission
        if admission is None:
            admission = self._admission = CallbackAdmission(self._pool, self._handlers.limits())
        try:
            self._handler_of(request)
            request.on_end = self._ended
            is_turn = admission.enter(request)
        except DspexError as refusal:
            self._refuse(request, refusal)
            return
        if is_turn:
            self._turns.append(request)
            self._start_turns()

    def _handler_of(self, request: Callback) -> Handler:
        """Return who answers: the client that the call is made for, if it has a handler for this, else we."""
        client = request.outer.client
        own = None if client is None else client.handlers.get(request.name)
        return own or self._handlers.find(request.name)

    def stop(self) -> None:
        self._threads.stop()
        self._loop.stop()

    # -- one after the other --

    def _ended(self, request: Callback) -> None:
        """Free the place of a request that was answered, or that nobody waits for, and start those behind it."""
        if self._admission is None:
            return
        turns = self._admission.leave(request)
        self._note_left(request)
        if turns:
            self._turns.extend(turns)
            self._start_turns()

    def _note_left(self, request: Callback) -> None:
        """Note a handler that goes on though nobody waits for it: it does not count against living calls."""
        if not request.is_cancelled:
            return
        with self._left_lock:
            if request.is_over:
                self._left.discard(request)
            elif request.is_asynchronous:
                self._left.add(request)
                if len(self._left) == LEFT_TASKS_MOST:
                    self._report_left(LEFT_TASKS_MOST)
        for hopeless in self._threads.leave(request):
            self._refuse(hopeless, self._threads.exhausted())

    def _start_turns(self) -> None:
        """Start what may run. One thread does at a time, and none in the middle of it: refusals end requests too."""
        while self._turns and self._starting.acquire(blocking=False):
            try:
                while self._turns:
                    self._start(self._turns.popleft())
            finally:
                self._starting.release()

    def _start(self, request: Callback) -> None:
        if request.is_cancelled:
            return
        try:
            self._require_reader(request)
            handler = self._handler_of(request)
            if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
                if len(self._left) >= LEFT_TASKS_MOST:
                    raise TooManyToolsLeft(self._pool, left=len(self._left), limit=LEFT_TASKS_MOST)
                loop = self._loop.running()
                loop.call_soon_threadsafe(request.run_on, loop, handler)
            elif request.is_within_tool:
                self._threads.run_beside(request, lambda: request.run(handler))
            else:
                self._threads.run(request, lambda: request.run(handler))
        except (DspexError, RuntimeError) as error:  # no thread can be started: the worker gets the error
            self._refuse(request, error)

    # -- what goes wrong --

    def _require_reader(self, request: Callback) -> None:
        """Make no more answers for a worker that has left too many unread."""
        unread, limit = request.worker.unread_answers(), workers.UNREAD_MOST
        if unread > limit:
            raise TooManyCallbacks(
                self._pool, request.name, scope="worker", command=request.outer.command, actual=unread, limit=limit,
                what="bytes of unread answers",
            )  # fmt: skip

    def _refuse(self, request: Callback, error: BaseException) -> None:
        request.fail(error)
        if isinstance(error, UnknownName):
            return
        self._refused += 1
        now = monotonic()
        if now - self._reported_at >= QUIET:
            count, self._refused, self._reported_at = self._refused, 0, now
            self._bus.emit(
                Name.CALLBACK_REFUSED,
                pool=self._pool,
                worker=request.worker.name,
                call=request.outer.id,
                handler=request.name,
                reason=error.scope if isinstance(error, TooManyCallbacks) else "handlers",
                count=count,
            )

    def _report_left(self, count: int) -> None:
        self._bus.emit(Name.TOOL_LEFT, pool=self._pool, count=count, reason="call_ended")
