"""One pool, as its users see it: calls, streams, sessions, and the operator's verbs.

Any thread calls it. The parts do the work: `call_factory` encodes calls, `dispatcher` holds the lock and carries out
what the state decides, `inbox` dispatches messages received from workers, `pool_workers` starts, monitors and reaps
their processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import Packed, messages
from dspex_worker.wire.messages import Kind

from ..config import PoolConfig
from ..errors import CallCancelled, PoolClosed, SessionLimit, WorkerBootError
from ..events import Bus, Name
from .call import Call
from .call_factory import CallFactory
from .callback_handlers import CallbackHandlers
from .dispatcher import Dispatcher
from .inbox import Inbox
from .pool_workers import PoolWorkers
from .processes.engine import Engine
from .processes.memory_cap import observe
from .recycling import Recycler
from .state.instructions import Instruction
from .stats import PoolStats, stats_of
from .streams import CREDIT, AsyncStream, Stream, StreamBuffer

if TYPE_CHECKING:
    from ..usage_stats import UsageStats
    from .supervisor import Supervisor

FAR = 1e9  # a timeout beyond is none
END_PATIENCE = 2.0  # seconds that stop() gives the processes to end once they were killed


class Pool:
    """A named pool of workers. Made by `Supervisor`; `sup.pool(name)` gives it."""

    def __init__(
        self, config: PoolConfig, engine: Engine, bus: Bus, handlers: CallbackHandlers, supervisor: Supervisor
    ) -> None:
        self.name = config.name
        self._supervisor = supervisor
        self._engine = engine
        self._bus = bus
        self._dispatcher = Dispatcher(config, engine, bus)
        self._call_factory = CallFactory(self._dispatcher)
        self._pool_workers = PoolWorkers(
            config, self._dispatcher, engine, bus, Inbox(self._dispatcher, self._call_factory, handlers, bus)
        )
        self._recycler = Recycler(self._dispatcher, self._pool_workers, engine, bus)
        self._is_stopped = False

    @property
    def config(self) -> PoolConfig:
        """The settings that it decides by now; `stats()["size"]` is the size, which `resize` changes too."""
        return self._dispatcher.config

    # -- calls -------------------------------------------------------------------------------------------------

    def call(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Run a command on a worker and give its result; blocks.

        Raises:
            CallTimeout, WorkerDied, RemoteError: and the other rows of the table in docs/concepts/failures.md.
        """
        return self.invoke(command, arguments, session=session, timeout=timeout, idempotent=idempotent).result()

    async def acall(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Any:
        """`call`, awaited. Cancelling the task cancels the call."""
        call = self.ainvoke(command, arguments, session=session, timeout=timeout, idempotent=idempotent)
        return (await call).result()

    def invoke(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
        cancel: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ) -> Call:
        """`call`, giving the ended Call: `.result()`, and the `.worker_name` and `.generation` that ran it.

        `cancel(callback)`, if given, is asked to have `callback` called when the caller does not want it any more; what
        it returns takes that back.
        """
        call = self._make(command, arguments, session, timeout, idempotent=idempotent)
        call.wait_in_thread()
        take_back = None
        try:
            self._dispatcher.submit(call)
            if cancel is not None:
                take_back = cancel(lambda: self.cancel(call))
            self._wait(call)
        except BaseException:
            self._dispatcher.recover(call)
            raise
        finally:
            if take_back is not None:
                take_back()
        return call

    async def ainvoke(
        self,
        command: str,
        arguments: dict[str, Any] | Packed | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
        keeps_packed: bool = False,
    ) -> Call:
        """`invoke`, awaited; with `keeps_packed` a large value stays packed, for who only passes it on."""
        call = self._make(command, arguments, session, timeout, idempotent=idempotent)
        call.keeps_packed = keeps_packed
        future = call.wait_in_loop(self._dispatcher.loop_batches)
        try:  # no await stands between submitting and waiting (C6)
            self._dispatcher.submit(call)
            if not call.is_ended:
                await future
        except BaseException:
            self._dispatcher.recover(call)
            raise
        return call

    def stream(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """Run a streaming command and iterate over its chunks; `.value` is what it returned in the end."""
        call = self._make(command, arguments, session, timeout, credit=CREDIT)
        buffer = call.stream = StreamBuffer(None)
        stream = Stream(call, buffer, self._grant, self)
        self._submit_stream(call)
        return stream

    def astream(
        self,
        command: str,
        arguments: dict[str, Any] | Packed | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        keeps_packed: bool = False,
    ) -> AsyncStream:
        """`stream`, for `async for`; needs a running event loop. `keeps_packed` as for `ainvoke`."""
        import asyncio

        call = self._make(command, arguments, session, timeout, credit=CREDIT)
        call.keeps_packed = keeps_packed
        buffer = call.stream = StreamBuffer(asyncio.get_running_loop())
        stream = AsyncStream(call, buffer, self._grant, self)
        self._submit_stream(call)
        return stream

    def expire(self, call: Call) -> None:
        """Its deadline has passed, or it has an outcome already (C7)."""
        self._dispatcher.expire(call)

    def abandon(self, call: Call) -> None:
        """Nobody waits for it any more."""
        if not self._supervisor.is_forked:
            self._dispatcher.give_up(call, None, "cancelled", wakes=True)

    def check_own_process(self) -> None:
        """Raise ForkedSupervisor in a forked child of the host (C13)."""
        self._supervisor.check_own_process()

    def cancel(self, call: Call) -> None:
        """End a call from another thread than its caller's: that one gets CallCancelled."""
        text = f"The call {call.command!r} in pool {self.name!r} was cancelled by another thread of its caller."
        self._dispatcher.give_up(call, CallCancelled(text), "cancelled", wakes=True)

    def abandon_later(self, call: Call) -> None:
        """`abandon` for finalizers: takes no lock (C11)."""
        self._dispatcher.recover(call)

    # -- the operator ------------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Aim at `size` workers; those too many finish their calls first."""
        self.check_own_process()
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"pool {self.name!r} cannot have {size!r} workers: give a whole number, 1 or more")
        self._dispatcher.change(lambda now: self._dispatcher.state.resize(size, now))
        self._bus.emit(Name.POOL_RESIZED, pool=self.name, size=size)

    def recycle(self, *, reload: bool = False, timeout: float | None = None) -> None:
        """Replace every worker, one at a time, each successor ready first; `reload` imports the code anew.

        Blocks until all are replaced.

        Raises:
            WorkerBootError: the code cannot be imported as it is now; nothing has changed.
            PoolClosed: the supervisor is not started, or stopped.
            TimeoutError: it took longer than `timeout` seconds; it goes on nevertheless.
        """
        self._supervisor.check_usable()
        if reload:
            self._recycler.renew(self.config, timeout)
        else:
            self._recycler.recycle(timeout)

    def reconfigure(self, config: PoolConfig, *, reload: bool = False, timeout: float | None = None) -> None:
        """Take new settings without failing a call.

        Limits, timeouts and the size count at once. If workers are made from what has changed (see
        docs/reference/settings.md), or with `reload`, they are replaced as `recycle(reload=True)` does, and this blocks
        until all are.

        Raises:
            ValueError: the settings are another pool's.
            WorkerBootError: no worker can be made so; nothing has changed.
            PoolClosed: workers must be replaced, and the supervisor is not started, or stopped.
            TimeoutError: it took longer than `timeout` seconds; it goes on nevertheless.
        """
        self.check_own_process()
        if config.name != self.name:
            raise ValueError(f"pool {self.name!r} cannot take the settings of pool {config.name!r}")
        if reload or not self.config.makes_same_workers(config):
            self._supervisor.check_usable()
            self._recycler.renew(config, timeout)
        else:
            self._recycler.adopt(config)

    def drain(self, timeout: float | None = None) -> None:
        """Take no new calls and wait until all that were taken have ended."""
        self.check_own_process()
        with self._dispatcher.lock:
            self._dispatcher.state.is_closed = True
        self._dispatcher.wait_or_raise(self._dispatcher.is_idle, timeout, "finish its calls")

    def forgive(self, digest: str) -> bool:
        """End a poison call's quarantine; False if there is none."""
        self.check_own_process()
        with self._dispatcher.lock:
            return self._dispatcher.state.poison.forgive(digest)

    def stats(self) -> PoolStats:
        """Give what the pool is doing now."""
        self.check_own_process()
        template = self._pool_workers.forkserver.template
        pid = template.pid if template is not None else None
        usage = self.usage()
        dispatcher = self._dispatcher
        with dispatcher.lock:
            stats = stats_of(
                self.config, dispatcher.state, dispatcher.workers, dispatcher.counts, pid, dispatcher.boot_error, usage
            )
        forkserver = self._pool_workers.forkserver
        problem = template.memory_problem if template is not None else ""
        return observe(stats, has_template=pid is not None, poll_problem=problem, memory_cap=forkserver.memory_cap)

    def usage(self, session: str | None = None) -> UsageStats:
        """What its calls, or those of one session (by its key), have used of language models so far."""
        return self._supervisor.books.usage(self.name, session)

    # -- sessions ----------------------------------------------------------------------------------------------

    def open_session(self, key: str, *, is_durable: bool, fresh: bool) -> None:
        """Make a session known; `fresh` forgets what it was.

        Raises:
            SessionLimit: the pool holds as many as it may, and each of them holds state.
        """
        self.check_own_process()
        dispatcher = self._dispatcher
        refused: list[str] = []

        def opened(now: float) -> list[Instruction]:
            try:
                return dispatcher.state.open_session(key, now, is_durable=is_durable, fresh=fresh)
            except KeyError:  # told below: out of `change`, it would look like an interruption
                refused.append(key)
                return []

        dispatcher.change(opened)
        if refused:
            limit = self.config.session_limit
            message = f"Pool {self.name!r} has {limit} sessions (session_limit), and each holds state."
            raise SessionLimit(message, pool=self.name, session=key.partition("/")[2])

    def close_session(self, key: str) -> None:
        """Forget a session once its calls have ended; its worker drops the state."""
        if self._supervisor.is_forked:
            return  # the parent's; leaving a `with` block is no error
        self._dispatcher.change(lambda now: self._dispatcher.state.close_session(key, now))

    def close_sessions_of(self, client: str) -> None:
        """`close_session` of all that a client has here, but for those that it shares with others."""
        with self._dispatcher.lock:
            keys = [key for key in self._dispatcher.state.sessions if key.startswith(f"{client}/")]
        for key in keys:
            self.close_session(key)

    # -- life: called by the supervisor ------------------------------------------------------------------------

    def start(self) -> None:
        self._engine.call_soon(self._begin)

    def wait_ready(self, timeout: float) -> None:
        """Wait until one worker is ready.

        Raises:
            WorkerBootError: none can start; it holds the end of what it printed.
        """
        dispatcher = self._dispatcher
        if not dispatcher.wait_until(lambda: dispatcher.is_serving() or self._is_hopeless(), timeout):
            raise WorkerBootError(
                f"Pool {self.name!r} has no ready worker after {timeout:g} s. Its workers are still starting; "
                f"raise startup_timeout, or look at what they print.",
                pool=self.name,
                stderr_tail=self._pool_workers.stderr_tail(),
            )
        if not dispatcher.is_serving():
            raise dispatcher.boot_error or dispatcher.closed()

    def close(self) -> None:
        """Take no more calls; those that were not sent end with PoolClosed."""
        self._dispatcher.change(self._dispatcher.state.close)

    def stop(self, grace: float) -> None:
        """Let running calls go on for `grace` seconds, then end every worker and the template."""
        deadline = time.monotonic() + grace
        dispatcher = self._dispatcher
        if dispatcher.broken is not None:  # its processes ended with the engine
            return
        dispatcher.wait_until(dispatcher.is_idle, grace)
        dispatcher.change(dispatcher.state.stop_workers)
        dispatcher.wait_until(lambda: not dispatcher.workers, max(0.0, min(1.0, deadline - time.monotonic())))
        self._is_stopped = True
        ended = threading.Event()
        self._engine.call_soon(lambda: self._pool_workers.end(ended.set))
        if not ended.wait(END_PATIENCE) and self._engine.is_alive:
            self._engine.call_soon(self._pool_workers.forkserver.kill)
            if not ended.wait(END_PATIENCE):
                raise PoolClosed(f"The template of pool {self.name!r} does not end, though it was killed.")

    def forget(self) -> None:
        """In a forked child of the host: close what is the parent's."""
        self._pool_workers.forget()

    # -- Timed: the engine's thread ----------------------------------------------------------------------------

    @property
    def due(self) -> float:
        dispatcher, pool_workers = self._dispatcher.due, self._pool_workers.due
        return dispatcher if dispatcher < pool_workers else pool_workers

    def tick(self, now: float) -> None:
        if now >= self._pool_workers.due:
            self._pool_workers.tick(now)
        if now >= self._dispatcher.due:
            self._dispatcher.tick(now)

    def tell(self) -> None:
        """Tell the events of all that has happened so far."""
        self._dispatcher.tell()

    def engine_died(self, cause: BaseException) -> None:
        self._dispatcher.fail_all(cause)
        self._pool_workers.end_without_engine()

    # ============================================================================================================

    def _make(
        self,
        command: str,
        arguments: dict[str, Any] | Packed | None,
        session: str | None,
        timeout: float | None,
        *,
        idempotent: bool = False,
        credit: int | None = None,
    ) -> Call:
        self._supervisor.check_usable()
        return self._call_factory.make(command, arguments, session, timeout, idempotent=idempotent, credit=credit)

    def _wait(self, call: Call) -> None:
        if call.is_ended:  # refused
            return
        remaining = call.remaining()
        lock = call.lock
        if lock is not None and not lock.acquire(timeout=-1 if remaining > FAR else max(0.0, remaining)):
            self._dispatcher.expire(call)

    def _submit_stream(self, call: Call) -> None:
        try:
            self._dispatcher.submit(call)
        except BaseException:
            self._dispatcher.recover(call)
            raise
        if call.is_ended and call.stream is not None:  # refused
            call.stream.finish()

    def _grant(self, call: Call, count: int) -> None:
        """The consumer of a stream took chunks: its worker may send as many more."""
        if call.stream is not None:
            call.stream.allow(count)  # before the worker can know
        worker = self._dispatcher.workers.get(call.generation)
        if worker is not None:
            self._dispatcher.post(worker, messages.write(Kind.CREDIT, call.id, count))

    def _begin(self) -> None:
        self._engine.add_timed(self)
        self._pool_workers.begin()

    def _is_hopeless(self) -> bool:
        """Whether waiting for the first worker is in vain."""
        if self._is_stopped:
            return True
        return self._dispatcher.boot_error is not None and self._pool_workers.boot_failures >= self.config.size
