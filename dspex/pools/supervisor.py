"""Start, call and stop named pools of workers.

    with dspex.Supervisor("dspex.toml") as sup:
        sup.call("dspy", "ping")

It starts no process and no thread until `start()`, installs no signal handler, and needs no event loop. At interpreter
exit it ends its workers at once; if the process is killed, the kernel does.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from dspex_worker import starting

from ..config import Config, PoolConfig
from ..errors import DspexError, PoolClosed, ResourceExhausted, SettingsError, StartRefused, UnknownName
from ..events import Bus, Event, Name
from ..lm.cache_settings import CacheLike, cache_from
from ..lm.given_lms import takes_lms
from ..lm.named_lms import LMLike, NamedLMs, is_name, lm_from, named, unknown_lm
from .budgets import Budget, HostServices, PoolBudgets
from .call_rows import ROWS_MOST, CallRow
from .call_verbs import CallKeywords, StreamKeywords
from .callback_handlers import CallbackHandlers, Handler
from .calling_client import LOCAL
from .dropped import DroppedEnd
from .given_config import config_of, require_own_modules, require_virtualenvs
from .inspection import ClientRow, Inspection
from .machine_limits import require_room
from .ownership import Ownership, call_after_fork, call_at_exit
from .pool import Pool
from .processes.engine import Engine
from .session import Session, session_key
from .session_rows import SessionRow
from .stats import PoolHealth, PoolStats, health_of
from .stats_views import shown_pools
from .streams import AsyncStream, Stream
from .worker_stacks import WorkerStacks

MORE_THREADS = "Raise pids.max of the control group, or `ulimit -u`."


class Supervisor:
    """Owns pools of workers. Usable from any thread and any event loop; `a`-twins await where the others block."""

    @takes_lms
    def __init__(
        self,
        source: str | os.PathLike[str] | Config | None = None,
        *,
        pools: Sequence[PoolConfig] | None = None,
        lm: LMLike | None = None,
        lms: Mapping[str, LMLike] | None = None,
        cache: CacheLike | None = None,
    ) -> None:
        """Make it of settings (a TOML file's path or a `Config`) or of `pools`; nothing is started.

        `lm` and `lms` are for the programs that name this supervisor, as in `dspex.configure`, and go before the [lm]
        and [lms.<name>] tables of the settings. `cache` (a `dspex.Cache`, or a file's path) becomes the process's, as
        by `dspex.configure`, and goes before a [cache] table.

        Raises:
            SettingsError: a value that cannot be; `key` says which.
        """
        self.config = config_of(source, pools)
        self.lms = _lms(self.config, lm, lms)
        self.cache = None if cache is None else cache_from(cache)
        self.handlers = CallbackHandlers()
        self.budgets = PoolBudgets()
        self._bus = bus = Bus()
        self._engine = engine = Engine()
        self._ownership = ownership = Ownership()
        ownership.supervisor = self  # it lives as long as a pool or a call of it does
        self._pools = {
            settings.name: Pool(settings, engine, bus, self.handlers, self.budgets, ownership)
            for settings in self.config.pools
        }
        self.inspection = Inspection(self._pools)

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> Supervisor:
        """Start every pool; returns at once (see `wait_ready`). Calls made meanwhile are queued.

        It belongs to the process that starts it: one that was made before a fork may be started after it.

        Raises:
            PoolClosed: it was stopped: make a new one. Or the interpreter is exiting.
            ForkedSupervisor: it was started before this process was forked.
            StartRefused: this process is being started by a supervisor itself.
            PoolTooLarge: this machine cannot hold so many workers.
            ResourceExhausted: no threads are left for it.
            VirtualenvMissing: a pool has requirements, and `dspex setup` has not made its virtualenv.
        """
        ownership = self._ownership
        ownership.check_own_process()
        _check_not_being_started()
        require_own_modules()  # they may have been replaced since it was made
        for settings in self.config.pools:
            require_room(settings.name, settings.size)
        require_virtualenvs([pool.config for pool in self._pools.values()], self.config.source)
        with ownership.lock:
            if ownership.is_stopped:
                raise PoolClosed("This supervisor was stopped; a stopped one does not start again: make a new one.")
            if ownership.is_started:
                return self
            call_at_exit(self._end_at_exit)
            self._start_threads()
            ownership.begin()
            call_after_fork(self)
            lifecycles = [pool.lifecycle for pool in self._pools.values()]
            self._dropped = DroppedEnd(ownership, self._engine, self._bus, self.handlers, lifecycles)
        for pool in self._pools.values():
            pool.lifecycle.start()
        self._bus.emit(Name.SUPERVISOR_STARTED, pools=",".join(self._pools), pid=os.getpid())
        return self

    def wait_ready(self, timeout: float | None = None, *, all: bool = False) -> Supervisor:
        """Wait until every pool has a ready worker, or, with `all`, as many as its size.

        One ready worker is enough to serve; `health()` says how many there are. `timeout` None means each pool's
        startup_timeout.

        Raises:
            WorkerBootError: a pool's workers cannot start; with `all`, one of them cannot.
        """
        self.check_usable()
        for pool in self._pools.values():
            pool.lifecycle.wait_ready(timeout, all=all)
        return self

    def stop(self, grace: float | None = None) -> None:
        """Take no more calls, let running ones go on for `grace` (None: each pool's stop_grace), then end everything.

        May be called twice, from any thread; whoever comes second does not wait for the first.
        """
        if self.is_forked:
            return  # the parent's; and its lock may have been held when this process was made
        with self._ownership.lock:
            was_running = self._ownership.end()
        if not was_running:
            return
        self._dropped.cancel()
        for pool in self._pools.values():
            pool.lifecycle.close()
        deadline = time.monotonic() + max(
            [grace if grace is not None else p.config.stop_grace for p in self._pools.values()]
        )
        for pool in reversed(self._pools.values()):
            own = pool.config.stop_grace if grace is None else grace
            pool.lifecycle.stop(max(0.0, min(own, deadline - time.monotonic())))
        self._bus.emit(Name.SUPERVISOR_STOPPED, pid=os.getpid())
        self._engine.stop()
        self.handlers.stop()
        self._bus.stop()

    def release(self) -> None:
        """`stop`, for the process whose default supervisor it was; a client of a service only disconnects."""
        self.stop()

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
        self, pool: str, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[CallKeywords]
    ) -> Any:
        """Run `command` on a worker of `pool` and return its result; blocks.

        `timeout` is in seconds and includes the wait in the queue; None means the pool's call_timeout, math.inf none.
        `idempotent=True` lets it run once more if its worker dies.

        Raises:
            UnknownName, EncodeError, FrameTooLarge: at once; nothing is sent.
            PoolSaturated, PoolUnhealthy, PoolClosed: the pool cannot take it now.
            CallTimeout, WorkerDied, WorkerMemoryExceeded, ProtocolError: it was taken and did not come back.
            RemoteError, LMError: it ran and raised.
        """
        _name_session(options)
        return self._find(pool).call(command, arguments, **options)

    async def acall(
        self, pool: str, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[CallKeywords]
    ) -> Any:
        """`call`, awaited on the running loop. Cancelling the task cancels the call."""
        _name_session(options)
        return (await self._find(pool).ainvoke(command, arguments, **options)).result()

    def stream(
        self, pool: str, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[StreamKeywords]
    ) -> Stream:
        """Run a streaming command: iterate over its chunks; `.value` is its result afterwards."""
        _name_session(options)
        return self._find(pool).stream(command, arguments, **options)

    def astream(
        self, pool: str, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[StreamKeywords]
    ) -> AsyncStream:
        """`stream`, for `async for`."""
        _name_session(options)
        return self._find(pool).astream(command, arguments, **options)

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

        `durable=True` keeps a copy of its state here, so that it survives its worker; `fresh=True` drops what was.
        A budget bounds what all its calls together use of language models: BudgetExceeded for the requests after it.
        """
        for name, value in (("budget_usd", budget_usd), ("budget_tokens", budget_tokens)):
            if value is not None and not value >= 0:
                raise SettingsError(f"{name} must be a number of 0 or more, not {value!r}.", key=name)
        session = Session(self._find(pool), id, durable=durable, fresh=fresh, client=client, shared=shared)
        if budget_usd is not None or budget_tokens is not None:
            self.budgets.set_budget(pool, session.key, Budget(budget_usd, budget_tokens))
        return session

    # -- looking at it and changing it -------------------------------------------------------------------------

    def pool(self, name: str) -> Pool:
        """Return a pool by name.

        Raises:
            UnknownName: there is none; it lists the near names.
            ForkedSupervisor: this is a forked child of the process that started it.
        """
        self._ownership.check_own_process()
        return self._find(name)

    def resume(self, pool: str) -> bool:
        """`Pool.resume` of a pool, by name."""
        return self.pool(pool).resume()

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(self._pools)

    def stats(self) -> dict[str, PoolStats]:
        """Return what each pool is doing now."""
        self._ownership.check_own_process()
        return shown_pools({name: pool.stats() for name, pool in self._pools.items()})

    def health(self) -> dict[str, PoolHealth]:
        """Return whether each pool can take a call now, and why not."""
        return {name: health_of(stats) for name, stats in self.stats().items()}

    def calls(self, pool: str | None = None, *, limit: int = ROWS_MOST) -> list[CallRow]:
        """Return the calls that run or wait, the oldest first: ids, names and times, never what they were given.

        Raises:
            UnknownName: there is no such pool.
            InvalidInput: `limit` is none from 1 to 1,000.
        """
        self._ownership.check_own_process()
        return self.inspection.calls(pool, limit)

    def cancel_call(self, id: int) -> bool:
        """End a call, whoever waits for it: that one gets CallCancelled. False if it has ended, or was cancelled."""
        self._ownership.check_own_process()
        return self.inspection.cancel(id, "its supervisor's process")

    def sessions(self, pool: str | None = None, *, limit: int = ROWS_MOST) -> list[SessionRow]:
        """Return the sessions that were used last, the latest first.

        Raises:
            UnknownName: there is no such pool.
            InvalidInput: `limit` is none from 1 to 1,000.
        """
        self._ownership.check_own_process()
        return self.inspection.sessions(pool, limit)

    def clients(self) -> list[ClientRow]:
        """Return who is connected to this supervisor's control services."""
        self._ownership.check_own_process()
        return self.inspection.clients()

    def stacks(self, worker: str | int) -> WorkerStacks:
        """Return the Python stacks of a worker ("dspy/0", or its pid): also of one that hangs, or holds the GIL in C.

        Blocks for three seconds at most.

        Raises:
            UnknownName: there is no such worker.
        """
        self._ownership.check_own_process()
        return self.inspection.stacks(worker)

    def on_event(self, subscriber: Callable[[Event], object]) -> Callable[[], None]:
        """Call `subscriber(event)` on the events thread from now on; return what ends it."""
        self._ownership.check_own_process()
        return self._bus.subscribe(subscriber)

    def emit(self, name: Name, /, **facts: Any) -> None:
        """Emit an event of a layer above the pools."""
        self._bus.emit(name, **facts)

    @property
    def services(self) -> HostServices | None:
        """The services of the layer above, once it is needed."""
        return self.budgets.services

    @services.setter
    def services(self, services: HostServices) -> None:
        self.budgets.services = services

    def register(self, name: str, handler: Handler) -> None:
        """Answer the workers' callbacks `name` with `handler(request)`; async handlers run on a loop of ours."""
        self.handlers.register(name, handler)

    def flush_events(self, timeout: float = 1.0) -> bool:
        """Wait until subscribers were called with all that has happened so far.

        Return False if that took longer than `timeout` seconds.
        """
        until = time.monotonic() + timeout
        if self._engine.is_alive:
            is_emitted = threading.Event()
            for pool in self._pools.values():
                self._engine.call_soon(pool.lifecycle.emit_events)
            self._engine.call_soon(is_emitted.set)
            is_emitted.wait(timeout)
        return self._bus.flush(max(0.0, until - time.monotonic()))

    @property
    def is_running(self) -> bool:
        return self._ownership.is_running

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child of the process that started it."""
        return self._ownership.is_forked

    def check_usable(self) -> None:
        """Raise ForkedSupervisor in a forked child of its process, PoolClosed where it is not started, or stopped."""
        self._ownership.check_usable()

    def __repr__(self) -> str:
        return f"<Supervisor of {', '.join(self._pools)}; {self._ownership}>"

    def after_fork(self) -> None:
        """In a forked child of the host: close what would keep the parent's workers from seeing its end (C13)."""
        self._engine.after_fork()
        for pool in self._pools.values():
            pool.lifecycle.after_fork()

    # ============================================================================================================

    def _find(self, pool: str) -> Pool:
        """Return a pool by its name; the caller checks whether this is its process."""
        try:
            return self._pools[pool]
        except KeyError:
            raise UnknownName("pool", pool, self._pools) from None

    def _start_threads(self) -> None:
        """Start both threads, or neither, where no descriptors or threads are left."""
        try:
            self._engine.start()
            self._bus.start()
        except RuntimeError as error:  # "can't start new thread"
            self._engine.stop()
            raise ResourceExhausted("threads", "a supervisor", remedy=MORE_THREADS) from error

    def _end_at_exit(self) -> None:
        """End without graces as the interpreter exits (an atexit hook would run after other threads were joined)."""
        with contextlib.suppress(DspexError):
            self.stop(grace=0.0)


def _lms(config: Config, lm: LMLike | None, lms: Mapping[str, LMLike] | None) -> NamedLMs:
    """Return the language models of this supervisor's own, which its programs ask where they name none."""
    own = NamedLMs(None, named(lms)).over(NamedLMs.of_tables(config.tables))
    if lm is None:
        return own
    if not is_name(lm):
        return NamedLMs(lm_from(lm), own.by_name)
    name = str(lm)
    if name not in own.by_name:
        raise unknown_lm(name, own.by_name)
    return NamedLMs(own.by_name[name], own.by_name)


def _check_not_being_started() -> None:
    pool = starting.begun_by()
    if pool is not None:
        raise StartRefused(pool)


def _name_session(options: CallKeywords | StreamKeywords) -> None:
    """Put the session's key in the place of its id."""
    session = options.get("session")
    if session is not None:
        options["session"] = session_key(session)
