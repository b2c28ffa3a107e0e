"""The supervisor: named pools, one engine, one life.

    with dspex.Supervisor("dspex.toml") as sup:
        sup.call("dspy", "ping")

It starts no process and no thread until `start()`, installs no signal handler, and needs no event loop. At interpreter
exit it ends its workers at once; if the process is killed, the kernel does.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from dspex_worker import starting

from ..config import Config, PoolConfig, checked_pools, load
from ..errors import DspexError, ForkedSupervisor, PoolClosed, SettingsError, StartRefused, UnknownName
from ..events import Bus, Event, Name
from .budgets import Budget, PoolBudgets
from .callback_handlers import CallbackHandlers, Handler
from .pool import Pool
from .processes.engine import Engine
from .session import LOCAL, Session, session_key
from .stats import PoolHealth, PoolStats, health_of
from .streams import AsyncStream, Stream

_living: weakref.WeakSet[Supervisor] = weakref.WeakSet()


class Supervisor:
    """Owns pools of workers. Usable from any thread and any event loop; `a`-twins await where the others block."""

    def __init__(
        self, source: str | os.PathLike[str] | Config | None = None, *, pools: Sequence[PoolConfig] | None = None
    ) -> None:
        self.config = _config(source, pools)
        self.handlers = CallbackHandlers()
        self.books = PoolBudgets()
        self.extensions: dict[str, Any] = {}  # what upper layers keep for this supervisor, by their names
        self._bus = Bus()
        self._engine = Engine()
        self._pools = {
            config.name: Pool(config, self._engine, self._bus, self.handlers, self) for config in self.config.pools
        }
        self._lock = threading.Lock()
        self._is_started = False
        self._is_stopped = False
        self._pid = 0  # of the process that started it

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> Supervisor:
        """Start every pool; returns at once (see `wait_ready`). Calls made meanwhile are queued.

        It belongs to the process that starts it: one that was made before a fork may be started after it.

        Raises:
            PoolClosed: it was stopped: make a new one. Or the interpreter is exiting.
            ForkedSupervisor: it was started before this process was forked.
            StartRefused: this process is being started by a supervisor itself.
        """
        self.check_own_process()
        _check_not_being_started()
        with self._lock:
            if self._is_stopped:
                raise PoolClosed("This supervisor was stopped; a stopped one does not start again: make a new one.")
            if self._is_started:
                return self
            _call_at_exit(weakref.WeakMethod(self._end_at_exit))
            self._engine.start()  # fails where no descriptors or threads are left: then it is not started
            self._bus.start()
            self._pid = os.getpid()
            self._is_started = True
            _living.add(self)
        for pool in self._pools.values():
            pool.start()
        self._bus.emit(Name.SUPERVISOR_STARTED, pools=",".join(self._pools), pid=os.getpid())
        return self

    def wait_ready(self, timeout: float | None = None) -> Supervisor:
        """Wait until every pool has a ready worker; `timeout` None means each pool's startup_timeout.

        Raises:
            WorkerBootError: a pool's workers cannot start.
        """
        self.check_usable()
        for pool in self._pools.values():
            pool.wait_ready(pool.config.startup_timeout if timeout is None else timeout)
        return self

    def stop(self, grace: float | None = None) -> None:
        """Take no more calls, let running ones go on for `grace` (None: each pool's stop_grace), then end everything.

        May be called twice, from any thread; whoever comes second does not wait for the first.
        """
        if self.is_forked:
            return  # the parent's; and its lock may have been held when this process was made
        with self._lock:
            was_running = self._is_started and not self._is_stopped
            self._is_stopped = True
        if not was_running:
            return
        for pool in self._pools.values():
            pool.close()
        deadline = time.monotonic() + max(
            [grace if grace is not None else p.config.stop_grace for p in self._pools.values()]
        )
        for pool in reversed(self._pools.values()):
            own = pool.config.stop_grace if grace is None else grace
            pool.stop(max(0.0, min(own, deadline - time.monotonic())))
        self._bus.emit(Name.SUPERVISOR_STOPPED, pid=os.getpid())
        self._shut_down()

    def __enter__(self) -> Supervisor:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Supervisor:
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        import asyncio

        await asyncio.to_thread(self.stop)

    # -- calls -------------------------------------------------------------------------------------------------

    def call(
        self,
        pool: str,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Run `command` on a worker of `pool` and give its result; blocks.

        `timeout` is in seconds and includes the wait in the queue; None means the pool's call_timeout, math.inf none.
        `idempotent=True` lets it run once more if its worker dies.

        Raises:
            UnknownName, EncodeError, FrameTooLarge: at once; nothing is sent.
            PoolSaturated, PoolUnhealthy, PoolClosed: the pool cannot take it now.
            CallTimeout, WorkerDied, WorkerMemoryExceeded, ProtocolError: it was taken and did not come back.
            RemoteError, LMError: it ran and raised.
        """
        key = _key(session)
        return self.pool(pool).call(command, arguments, session=key, timeout=timeout, idempotent=idempotent)

    async def acall(
        self,
        pool: str,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Any:
        """`call`, awaited on the running loop. Cancelling the task cancels the call."""
        key = _key(session)
        call = self.pool(pool).ainvoke(command, arguments, session=key, timeout=timeout, idempotent=idempotent)
        return (await call).result()

    def stream(
        self,
        pool: str,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """Run a streaming command: iterate over its chunks; `.value` is its result afterwards."""
        return self.pool(pool).stream(command, arguments, session=_key(session), timeout=timeout)

    def astream(
        self,
        pool: str,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
    ) -> AsyncStream:
        """`stream`, for `async for`."""
        return self.pool(pool).astream(command, arguments, session=_key(session), timeout=timeout)

    def session(
        self,
        pool: str,
        id: str | None = None,
        *,
        durable: bool = False,
        fresh: bool = False,
        client: str = LOCAL,
        shared: bool = False,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
    ) -> Session:
        """Open a session: its calls keep their order and their worker.

        `durable=True` keeps a copy of its state here, so that it survives its worker; `fresh=True` forgets what was.
        A budget bounds what all its calls together use of language models: BudgetExceeded for the requests after it.
        """
        for name, value in (("budget_usd", budget_usd), ("budget_tokens", budget_tokens)):
            if value is not None and not value >= 0:
                raise SettingsError(f"{name} must be a number of 0 or more, not {value!r}.", key=name)
        session = Session(self.pool(pool), id, durable=durable, fresh=fresh, client=client, shared=shared)
        if budget_usd is not None or budget_tokens is not None:
            self.books.set_budget(pool, session.key, Budget(budget_usd, budget_tokens))
        return session

    # -- looking at it and changing it -------------------------------------------------------------------------

    def pool(self, name: str) -> Pool:
        """Give a pool by name.

        Raises:
            UnknownName: there is none; it lists the near names.
            ForkedSupervisor: this is a forked child of the process that started it.
        """
        self.check_own_process()
        try:
            return self._pools[name]
        except KeyError:
            raise UnknownName("pool", name, self._pools) from None

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(self._pools)

    def stats(self) -> dict[str, PoolStats]:
        """Give what each pool is doing now."""
        self.check_own_process()
        return {name: pool.stats() for name, pool in self._pools.items()}

    def health(self) -> dict[str, PoolHealth]:
        """Give whether each pool can take a call now, and why not."""
        return {name: health_of(stats) for name, stats in self.stats().items()}

    def on_event(self, subscriber: Callable[[Event], object]) -> Callable[[], None]:
        """Call `subscriber(event)` on the events thread from now on; gives what ends it."""
        self.check_own_process()
        return self._bus.subscribe(subscriber)

    def emit(self, name: Name, /, **facts: Any) -> None:
        """Emit an event of a layer above the pools."""
        self._bus.emit(name, **facts)

    def register(self, name: str, handler: Handler) -> None:
        """Answer the workers' reverse calls `name` with `handler(request)`; async handlers run on a loop of ours."""
        self.handlers.register(name, handler)

    def flush_events(self, timeout: float = 1.0) -> bool:
        """Wait until subscribers have heard of all that has happened so far.

        Give False if that took longer than `timeout` seconds.
        """
        until = time.monotonic() + timeout
        if self._engine.is_alive:
            is_told = threading.Event()
            self._engine.call_soon(lambda: self._tell(is_told))
            is_told.wait(timeout)
        return self._bus.flush(max(0.0, until - time.monotonic()))

    def _tell(self, is_told: threading.Event) -> None:
        for pool in self._pools.values():
            pool.tell()
        is_told.set()

    @property
    def is_running(self) -> bool:
        return self._is_started and not self._is_stopped and not self.is_forked

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child of the process that started it."""
        return self._is_started and self._pid != os.getpid()

    def check_usable(self) -> None:
        """Raise what a caller must hear before anything else.

        Raises:
            ForkedSupervisor: this is a forked child of the process that started it.
            PoolClosed: it is not started, or stopped.
        """
        self.check_own_process()
        if not self._is_started:
            raise PoolClosed("This supervisor is not started: call start(), or use it as a context manager.")
        if self._is_stopped:
            raise PoolClosed("This supervisor was stopped.")

    def check_own_process(self) -> None:
        """Raise what a forked child must hear before it touches a lock or a pipe of its parent's (C13).

        Raises:
            ForkedSupervisor: this is a forked child of the process that started it.
        """
        if self.is_forked:
            raise ForkedSupervisor(
                f"This supervisor belongs to process {self._pid}; process {os.getpid()} was forked from it and must "
                f"start one of its own (the default one of dspex.configure does so by itself)."
            )

    def __repr__(self) -> str:
        state = "running" if self._is_started else "not started"
        if self._is_stopped:
            state = "stopped"
        elif self.is_forked:
            state = f"of process {self._pid}"
        return f"<Supervisor of {', '.join(self._pools)}; {state}>"

    # ============================================================================================================

    def _shut_down(self) -> None:
        self._engine.stop()
        self.handlers.stop()
        self._bus.stop()

    def _end_at_exit(self) -> None:
        """The interpreter is going: no graces (a plain atexit hook would run only after other threads were joined)."""
        with contextlib.suppress(DspexError):
            self.stop(grace=0.0)

    def _forget_in_child(self) -> None:
        """In a forked child of the host: close what would keep the parent's workers from seeing its end (C13)."""
        self._engine.forget()
        for pool in self._pools.values():
            pool.forget()


def _forget_all_in_child() -> None:
    for supervisor in tuple(_living):
        supervisor._forget_in_child()
    _living.clear()  # once: a child of this child may have other files under these numbers


os.register_at_fork(after_in_child=_forget_all_in_child)


def _call_at_exit(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    def call() -> None:
        function = method()
        if function is not None:
            function()

    try:
        # Hooks run last in, first out, and an executor's waits for what its threads do: it must be there before ours.
        import concurrent.futures.thread  # noqa: F401

        threading._register_atexit(call)  # type: ignore[attr-defined]
    except RuntimeError:
        raise PoolClosed("The interpreter is exiting: no supervisor can be started any more.") from None


def _config(source: str | os.PathLike[str] | Config | None, pools: Sequence[PoolConfig] | None) -> Config:
    if sys.platform != "linux":
        raise SettingsError(f"DSPex runs its pools on Linux (epoll, pidfd, lifelines); this is {sys.platform}.")
    if not hasattr(select, "epoll"):
        raise SettingsError(
            "select.epoll is missing in this process: gevent or eventlet has replaced it, and threads as well, which "
            "DSPex needs as they were. Start the supervisor in a process that is not monkey-patched."
        )
    if pools is not None and source is not None:
        raise SettingsError("Give a settings file or pools=, not both.", key="pools")
    if pools is not None:
        return Config(checked_pools(pools), {}, "arguments")
    return source if isinstance(source, Config) else load(source)


def _check_not_being_started() -> None:
    pool = starting.begun_by()
    if pool is not None:
        raise StartRefused(pool)


def _key(session: str | None) -> str | None:
    return None if session is None else session_key(session)
