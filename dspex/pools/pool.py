"""One pool, as its users see it: calls, streams, sessions, and operations.

Any thread calls it. The parts do the work: `caller` makes calls and waits for them, `dispatcher` holds the lock and
carries out what the state decides, `inbox` dispatches messages received from workers, `workers` starts, monitors
and reaps their processes.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from dspex_worker.wire import Packed

from ..config import PoolConfig
from ..errors import SessionLimit
from ..events import Bus, Name
from .budgets import PoolBudgets
from .call import Call
from .call_client import CallClient
from .call_factory import CallFactory
from .call_rows import LiveCalls
from .call_tally import CallTally
from .call_verbs import CallKeywords, StreamKeywords
from .callback_handlers import CallbackHandlers
from .caller import Caller, Cancel
from .dispatcher import Dispatcher
from .durable_sessions import SessionCopy
from .given_config import require_virtualenvs
from .inbox import Inbox
from .machine_limits import require_room
from .ownership import Ownership
from .pool_lifecycle import PoolLifecycle
from .processes.engine import Engine
from .recycling import Recycler
from .session_rows import SessionRow, session_rows
from .state.instructions import Instruction
from .stats import PoolStats, observe, stats_of
from .stats_views import shown_pool
from .streams import AsyncStream, Stream
from .worker_stacks import StackLook, look_at
from .workers import PoolWorkers

if TYPE_CHECKING:
    from ..usage_stats import UsageStats


class Pool:
    """A named pool of workers. Made by `Supervisor`; `sup.pool(name)` gives it."""

    def __init__(
        self,
        config: PoolConfig,
        engine: Engine,
        bus: Bus,
        handlers: CallbackHandlers,
        budgets: PoolBudgets,
        ownership: Ownership,
    ) -> None:
        self.name = config.name
        self._bus = bus
        self._budgets = budgets
        self._ownership = ownership
        self._dispatcher = dispatcher = Dispatcher(config, engine, bus)
        call_factory = CallFactory(dispatcher)
        inbox = Inbox(dispatcher, call_factory, handlers, engine, bus)
        self._pool_workers = PoolWorkers(config, dispatcher, engine, bus, inbox)
        self._caller = Caller(dispatcher, call_factory, ownership)
        self._recycler = Recycler(dispatcher, self._pool_workers, engine, bus)
        self.live_calls = LiveCalls(dispatcher, self._caller)
        self.lifecycle = PoolLifecycle(dispatcher, self._pool_workers, engine)

    @property
    def config(self) -> PoolConfig:
        """The settings in force; `stats()["size"]` is the size, which `resize` changes too."""
        return self._dispatcher.config

    # -- calls -------------------------------------------------------------------------------------------------

    def call(self, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[CallKeywords]) -> Any:
        """Run a command on a worker and return its result; blocks.

        Raises:
            CallTimeout, WorkerDied, RemoteError: and the other rows of the table in docs/concepts/failures.md.
        """
        return self._caller.invoke(command, arguments, options).result()

    async def acall(
        self, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[CallKeywords]
    ) -> Any:
        """`call`, awaited. Cancelling the task cancels the call."""
        return (await self._caller.ainvoke(command, arguments, options)).result()

    def invoke(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        cancel: Cancel | None = None,
        is_trusted: bool = True,
        **options: Unpack[CallKeywords],
    ) -> Call:
        """`call`, giving the ended Call: `.result()`, and the `.worker_name` and `.generation` that ran it.

        `cancel(callback)`, if given, is asked to have `callback` called when the caller does not want it any more; what
        it returns takes that back.
        """
        return self._caller.invoke(command, arguments, options, cancel, is_trusted=is_trusted)

    def ainvoke(
        self,
        command: str,
        arguments: dict[str, Any] | Packed | None = None,
        *,
        keeps_packed: bool = False,
        is_trusted: bool = True,
        client: CallClient | None = None,
        **options: Unpack[CallKeywords],
    ) -> Coroutine[Any, Any, Call]:
        """`invoke`, to be awaited: the caller's own coroutine, for one more of them costs at every step.

        With `keeps_packed` a large value stays packed, for who only passes it on. `is_trusted=False` is for calls that
        another process or a file asks for: workers import for them what the pool's `imports` name, and nothing else.
        `client` is the other process.
        """
        return self._caller.ainvoke(
            command, arguments, options, keeps_packed=keeps_packed, is_trusted=is_trusted, client=client
        )

    def stream(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        is_trusted: bool = True,
        **options: Unpack[StreamKeywords],
    ) -> Stream:
        """Run a streaming command and iterate over its chunks; `.value` is what it returned in the end."""
        return self._caller.stream(command, arguments, options, is_trusted=is_trusted)

    def astream(
        self,
        command: str,
        arguments: dict[str, Any] | Packed | None = None,
        *,
        keeps_packed: bool = False,
        is_trusted: bool = True,
        client: CallClient | None = None,
        **options: Unpack[StreamKeywords],
    ) -> AsyncStream:
        """`stream`, for `async for`; needs a running event loop. The other arguments are as for `ainvoke`."""
        return self._caller.astream(
            command, arguments, options, keeps_packed=keeps_packed, is_trusted=is_trusted, client=client
        )

    # -- the operator ------------------------------------------------------------------------------------------

    def learn(self, module: str, version: str) -> None:
        """Note that calls of this process have workers import a module: successors are forked with it."""
        self._pool_workers.forkserver.learned.learn(module, version)

    def resize(self, size: int) -> None:
        """Aim at `size` workers; those too many finish their calls first.

        Raises:
            ValueError: it is no number of workers.
            PoolTooLarge: this machine cannot hold so many.
        """
        self._ownership.check_own_process()
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"pool {self.name!r} cannot have {size!r} workers: give a whole number, 1 or more")
        require_room(self.name, size, present=self._dispatcher.state.size)
        self._dispatcher.change(lambda now: self._dispatcher.state.resize(size, now))
        self._bus.emit(Name.POOL_RESIZED, pool=self.name, size=size)

    def recycle(self, *, reload: bool = False, timeout: float | None = None) -> None:
        """Replace every worker, one at a time, each successor ready first; `reload` imports the code anew.

        Blocks until all are replaced. A worker with state of sessions goes on for them, for `session_drain` at most.

        Raises:
            WorkerBootError: the code cannot be imported as it is now; nothing has changed.
            PoolClosed: the supervisor is not started, or stopped.
            TimeoutError: it took longer than `timeout` seconds; it goes on nevertheless.
        """
        self._ownership.check_usable()
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
            PoolTooLarge: this machine cannot hold so many workers.
            WorkerBootError: no worker can be made so; nothing has changed.
            VirtualenvMissing: `dspex setup` has not made the virtualenv of its requirements; nothing has changed.
            PoolClosed: workers must be replaced, and the supervisor is not started, or stopped.
            TimeoutError: it took longer than `timeout` seconds; it goes on nevertheless.
        """
        self._ownership.check_own_process()
        if config.name != self.name:
            raise ValueError(f"pool {self.name!r} cannot take the settings of pool {config.name!r}")
        require_room(self.name, config.size, present=self._dispatcher.state.size)
        if reload or not self.config.makes_same_workers(config):
            self._ownership.check_usable()
            require_virtualenvs([config])
            self._recycler.renew(config, timeout)
        else:
            self._recycler.adopt(config)

    def drain(self, timeout: float | None = None) -> None:
        """Take no new calls until `resume`, and wait until all that were taken have ended."""
        self._ownership.check_own_process()
        with self._dispatcher.lock:
            self._dispatcher.state.is_closed = True
        self._bus.emit(Name.POOL_DRAINED, pool=self.name)
        self._dispatcher.changes.wait_or_raise(self._dispatcher.is_idle, timeout, "finish its calls")

    def resume(self) -> bool:
        """Take calls again after a `drain`, also one that has not ended; False if the pool was taking them.

        Raises:
            PoolClosed: its supervisor is stopping, or has stopped.
        """
        self._ownership.check_own_process()
        with self._dispatcher.lock:
            if self._dispatcher.state.is_over:
                raise self._dispatcher.closed()
            was_closed, self._dispatcher.state.is_closed = self._dispatcher.state.is_closed, False
        if was_closed:
            self._bus.emit(Name.POOL_RESUMED, pool=self.name)
        return was_closed

    @property
    def is_drained(self) -> bool:
        """Whether it takes no calls until `resume`, whatever else is done to it; False once it is stopped for good."""
        state = self._dispatcher.state
        return state.is_closed and not state.is_over

    def forgive(self, digest: str) -> bool:
        """End a poison call's quarantine; False if there is none."""
        self._ownership.check_own_process()
        with self._dispatcher.lock:
            return self._dispatcher.state.poison.forgive(digest)

    def stats(self) -> PoolStats:
        """Return what the pool is doing now."""
        self._ownership.check_own_process()
        forkserver, dispatcher, usage = self._pool_workers.forkserver, self._dispatcher, self.usage()
        process = forkserver.current
        pid = process.pid if process is not None else None
        with dispatcher.lock:
            stats = stats_of(
                self.config, dispatcher.state, dispatcher.workers, dispatcher.counts, pid, dispatcher.boot_error, usage
            )
        problem = process.memory_problem if process is not None else ""
        memory_cap = forkserver.memory_cap
        return shown_pool(observe(stats, has_forkserver=pid is not None, poll_problem=problem, memory_cap=memory_cap))

    def tally(self) -> CallTally:
        """Return how its calls have ended since this was first asked; from then on each is counted."""
        return self._dispatcher.tallied()

    def session_rows(self, limit: int) -> list[SessionRow]:
        """Return the `limit` sessions that were used last."""
        return session_rows(self._dispatcher, limit)

    def look_at_stacks(self, worker: str | int) -> StackLook:
        """Begin to look at the Python stacks of a worker, by its name or pid.

        Raises:
            UnknownName: there is no such worker here.
        """
        return look_at(self._dispatcher, worker)

    def usage(self, session: str | None = None) -> UsageStats:
        """Return what its calls, or those of one session (by its key), have used of language models so far."""
        return self._budgets.usage(self.name, session)

    # -- sessions ----------------------------------------------------------------------------------------------

    def session_copy(self, key: str) -> SessionCopy:
        """Return what is known of a session's state."""
        dispatcher = self._dispatcher
        with dispatcher.lock:
            record = dispatcher.state.sessions.get(key)
            if record is None:
                return SessionCopy()
            values = dispatcher.durable.values(key) if record.is_durable else None
            return SessionCopy(record.is_stateful, record.generation, values)

    def open_session(
        self, key: str, *, is_durable: bool, fresh: bool, state: Mapping[str, bytes] | None = None
    ) -> None:
        """Make a session known; `fresh` drops what it was. A new durable one begins with `state`, checked before.

        Raises:
            SessionLimit: the pool holds as many as it may, and each of them holds state.
        """
        self._ownership.check_own_process()
        dispatcher = self._dispatcher
        refused: list[str] = []

        def opened(now: float) -> list[Instruction]:
            try:
                is_new = key not in dispatcher.state.sessions
                instructions = dispatcher.state.open_session(key, now, is_durable=is_durable, fresh=fresh)
                if state and is_new and dispatcher.state.restore_session(key):
                    dispatcher.durable.put(key, state)
                return instructions
            except KeyError:  # raised below: out of `change`, it would look like an interruption
                refused.append(key)
                return []

        dispatcher.change(opened)
        if refused:
            limit = self.config.session_limit
            message = f"Pool {self.name!r} has {limit} sessions (session_limit), and each holds state."
            raise SessionLimit(message, pool=self.name, session=key.partition("/")[2])

    def close_session(self, key: str) -> None:
        """Drop a session once its calls have ended; its worker drops the state."""
        if self._ownership.is_forked:
            return  # the parent's; leaving a `with` block is no error
        self._dispatcher.change(lambda now: self._dispatcher.state.close_session(key, now))

    def close_sessions_of(self, client: str) -> None:
        """`close_session` of all that a client has here, but for those that it shares with others."""
        with self._dispatcher.lock:
            keys = [key for key in self._dispatcher.state.sessions if key.startswith(f"{client}/")]
        for key in keys:
            self.close_session(key)
