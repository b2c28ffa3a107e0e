"""Keep a pool's fork server running: replace it on reload, restart it after a crash.

Runs on the engine's thread. To import code anew, or with other settings, a candidate is warmed beside the fork server
that serves: it takes over once it is warm, and if it cannot be, nothing has changed. A fork server that was replaced
stays until its last worker has gone, because it is their parent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Any

from ... import forks
from ...config import PoolConfig
from ...errors import WorkerBootError
from ...events import Bus, Name
from ...lm.redaction import redact
from ...terminal_text import inert
from .engine import Engine
from .forkserver_process import ForkserverMessage, ForkserverProcess
from .learned_modules import LearnedModules
from .memory_cap import MemoryCap
from .timers import Timer

Outcome = Callable[[WorkerBootError | None], None]

FIRST_RETRY, LONGEST_RETRY = 0.1, 30.0  # seconds until a lost fork server is started again
TEXT_MOST = 1000  # characters of an error in its event
ERROR = 40  # the level of `logging`
STOP_CHECK_EVERY = 1.0  # seconds between looks for fork servers that a signal stopped


@dataclass(frozen=True, slots=True)
class ForkserverWarm:
    """Workers can be spawned."""


@dataclass(frozen=True, slots=True)
class ForkserverLost:
    """A fork server has ended, and its workers go on without it."""

    process: ForkserverProcess


@dataclass(frozen=True, slots=True)
class ForkserverFailed:
    """A fork server could not be started or warmed; another is tried later."""

    error: WorkerBootError


ForkserverEvent = ForkserverWarm | ForkserverLost | ForkserverFailed | ForkserverMessage


class PoolForkserver:
    """The fork servers of one pool. `on_event` gets their events, and their reports on workers."""

    def __init__(
        self, config: PoolConfig, engine: Engine, bus: Bus, on_event: Callable[[ForkserverEvent], None]
    ) -> None:
        self.current: ForkserverProcess | None = None
        self.is_warm = False
        self.memory_cap = MemoryCap(config.name)
        self.learned = LearnedModules()
        self._config = config
        self._engine = engine
        self._bus = bus
        self._on_event = on_event
        self._candidate: ForkserverProcess | None = None
        self._outcomes: list[Outcome] = []  # to be called with what becomes of the candidate
        self._retired: list[ForkserverProcess] = []
        self._failures = 0
        self._spawned = 0
        self._is_over = False
        self._on_end: Callable[[], None] | None = None
        self._retry = Timer(engine.timers, lambda now: self.launch())
        self._warm_by = Timer(engine.timers, lambda now: _kill(self.current))
        self._candidate_by = Timer(engine.timers, lambda now: _kill(self._candidate))
        self._stop_check = Timer(engine.timers, self._kill_stopped)

    def launch(self) -> None:
        """Start a fork server; workers can be spawned after `ForkserverWarm`."""
        self._retry.clear()
        self.is_warm = False
        if self._is_over:
            return
        try:
            branch = self.memory_cap.branch(self._config)
            with forks.held_back():  # until `after_fork` knows of it
                self.current = self._start(self._config, branch)
        except OSError as error:
            self.current = None
            self._fail(self._error(f"its fork server could not be started: {error}"))
            return
        self._warm_by.set(monotonic() + self._config.startup_timeout)

    def renew(self, config: PoolConfig, outcome: Outcome) -> None:
        """Warm a fork server that imports the code as it is now; `outcome(None)` once it serves, else the error.

        A candidate that is not warm yet gives way to a later one, whose outcome is then both callers'.
        """
        self._outcomes.append(outcome)
        if self._candidate is not None:
            self._retired.append(self._candidate)
            self._candidate.let_go()
        self._candidate = None
        if self._is_over:
            self._conclude(self._error("the pool is being stopped"))
            return
        try:
            branch = self.memory_cap.branch(config)
            with forks.held_back():
                self._candidate = self._start(config, branch)
        except OSError as error:
            self._conclude(self._error(f"a new fork server could not be started: {error}"))
            return
        self._candidate_by.set(monotonic() + config.startup_timeout)

    def catch_up(self) -> None:
        """Note that a worker was spawned. Before the next successor, warm a fork server with what was learned since.

        It is warmed beside the one that serves, and calls go on meanwhile.
        """
        self._spawned += 1
        are_first = self._spawned <= self._config.size  # they have just been forked, and may last for long
        if not are_first and self.is_warm and self._candidate is None and self.learned.is_behind:
            self.renew(self._config, lambda error: None)

    def release(self, needed: Collection[ForkserverProcess | None]) -> None:
        """Let go of replaced fork servers that no worker needs any more."""
        for process in self._retired:
            if process not in needed:
                process.let_go()

    # -- the end --

    def end(self, on_end: Callable[[], None]) -> None:
        """Let every fork server go, and call `on_end` when all of them have ended."""
        self._is_over = True
        for timer in (self._retry, self._warm_by, self._candidate_by, self._stop_check):
            timer.clear()
        self._on_end = on_end
        self._conclude(self._error("the pool is being stopped"))
        for process in self._all():
            process.let_go()
        self._end_if_gone()

    def kill(self) -> None:
        """Kill the fork servers that did not end by themselves."""
        for process in self._all():
            process.kill()

    def end_without_engine(self) -> None:
        """End every fork server, and wait for it."""
        self._is_over = True
        for process in self._all():
            process.end_without_engine()
        self.memory_cap.after_fork()

    def after_fork(self) -> None:
        """In a forked child of the host: close what is the parent's."""
        for process in self._all():
            process.after_fork()
        self.memory_cap.after_fork()

    def stderr_tail(self) -> str:
        """Return the end of what the fork server that serves has printed."""
        return self.current.stderr.text() if self.current is not None else ""

    # -- what fork servers report --

    def _on_message(self, message: ForkserverMessage) -> None:
        process = message.process
        if message.kind == "not_warm":
            process.failure = message.facts
        elif message.kind != "warm":
            self._on_event(message)
        elif process is self._candidate and not _forks_as_before(process, message.facts):
            process.kill()  # an import left a thread: it would start each worker through exec, from nothing
        elif process is self._candidate:
            self._take_over(process)
            self._warmed(process, message.facts)
            self._conclude(None)
        elif process is self.current:  # else it has been replaced meanwhile
            self._warmed(process, message.facts)

    def _warmed(self, process: ForkserverProcess, facts: dict[str, Any]) -> None:
        self.is_warm = True
        self.learned.served = process.learned
        self._warm_by.clear()
        self._failures = 0
        process.memory_problem = problem = facts.pop("memory_problem", "")
        self._bus.emit(Name.FORKSERVER_WARMED, pool=self._config.name, **facts)
        if problem and process.config.memory_cap is not None and self.memory_cap.problem:
            reason = f"poll: {problem}; cgroup: {self.memory_cap.problem}"
            self._bus.emit(Name.CAP_UNENFORCED, pool=self._config.name, reason=reason)
        self._on_event(ForkserverWarm())

    def _take_over(self, candidate: ForkserverProcess) -> None:
        if self.current is not None:
            self._retired.append(self.current)
        self.current, self._config, self._candidate = candidate, candidate.config, None
        self._candidate_by.clear()
        self._retry.clear()

    def _start(self, config: PoolConfig, branch: str | None) -> ForkserverProcess:
        self._stop_check.set(min(self._stop_check.due, monotonic() + STOP_CHECK_EVERY))
        return ForkserverProcess(
            config,
            self._engine,
            branch,
            learned=self.learned.to_warm() if config.start_method == "fork" else {},
            on_message=self._on_message,
            on_exit=self._on_exit,
        )

    def _kill_stopped(self, now: float) -> None:
        """A stopped fork server is as good as lost, and its workers are better off without it (T6)."""
        self._stop_check.set(now + STOP_CHECK_EVERY)
        for process in self._all():
            if process.is_stopped():
                process.kill()

    # -- how they end --

    def _on_exit(self, process: ForkserverProcess) -> None:
        """Its workers, if any, go on without it (T6)."""
        if process in self._retired:
            self._retired.remove(process)
            if not self._is_over:
                self._on_event(ForkserverLost(process))
        elif process is self._candidate:
            self._candidate_failed(process)
        else:
            self._current_ended(process)
        self._end_if_gone()

    def _candidate_failed(self, process: ForkserverProcess) -> None:
        self._candidate = None
        self._candidate_by.clear()
        self.learned.give_up(process.learned)
        error = _death(process)
        if not self._is_over:
            self._say(error)
        self._conclude(error)

    def _current_ended(self, process: ForkserverProcess) -> None:
        was_warm, self.is_warm, self.current = self.is_warm, False, None
        if self._is_over:
            return
        self._bus.emit(Name.FORKSERVER_LOST, pool=self._config.name, pid=process.pid, warm=was_warm)
        if was_warm:
            self._retry.set(monotonic() + FIRST_RETRY)
            self._on_event(ForkserverLost(process))
        elif process.learned:  # it may have been one of these: `imports` alone decide whether a pool can start
            self.learned.give_up(process.learned)
            self.launch()
        else:
            self._fail(_death(process))

    def _fail(self, error: WorkerBootError) -> None:
        """Report that no worker can start, and try again after growing waits."""
        self._say(error)
        self._warm_by.clear()
        self._failures += 1
        self._retry.set(monotonic() + min(LONGEST_RETRY, FIRST_RETRY * 2**self._failures))
        self._on_event(ForkserverFailed(error))

    def _say(self, error: WorkerBootError) -> None:
        pool, printed = self._config.name, inert(redact(error.stderr_tail.strip()))
        self._bus.emit(Name.FORKSERVER_FAILED, pool=pool, text=str(error)[:TEXT_MOST])
        if printed:
            who = {"pool": pool, "worker": f"{pool}/fork server", "pid": None, "logger": "stderr"}
            self._bus.emit(Name.WORKER_LOGGED, **who, level=ERROR, text=printed)

    def _error(self, what: str) -> WorkerBootError:
        return _boot_error(self._config.name, what)

    def _all(self) -> list[ForkserverProcess]:
        return [*self._retired, *(one for one in (self.current, self._candidate) if one is not None)]

    def _conclude(self, error: WorkerBootError | None) -> None:
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            outcome(error)

    def _end_if_gone(self) -> None:
        if self._is_over and self._on_end is not None and not self._all():
            on_end, self._on_end = self._on_end, None
            self.memory_cap.release()
            on_end()


def _forks_as_before(process: ForkserverProcess, facts: dict[str, Any]) -> bool:
    return bool(facts.get("forks")) or process.config.start_method != "fork" or not process.learned


def _kill(process: ForkserverProcess | None) -> None:
    if process is not None:
        process.kill()


def _death(process: ForkserverProcess) -> WorkerBootError:
    described, config = process.failure, process.config
    if described is not None:
        what = f"{described.get('type')}: {described.get('message')}"
    elif not process.has_greeted:
        what = _no_interpreter(process)
    elif process.was_killed:
        what = f"its code was not imported within {config.startup_timeout:g} s (startup_timeout)"
    else:
        what = f"its fork server ended with status {process.status} while it imported"
    return _boot_error(config.name, what, process.stderr.text())


def _boot_error(pool: str, what: str, stderr_tail: str = "") -> WorkerBootError:
    return WorkerBootError(f"Pool {pool!r} cannot start workers: {what}", pool=pool, stderr_tail=stderr_tail)


def _no_interpreter(process: ForkserverProcess) -> str:
    """Say that what was to run the worker package never came to it."""
    config = process.config
    how = f"ended with status {process.status}"
    if process.was_killed:
        how = f"had not done so within {config.startup_timeout:g} s (startup_timeout) and was killed"
    elif process.status is not None and process.status < 0:
        return f"{config.interpreter}, which was to run dspex_worker.forkserver, was ended by signal {-process.status}"
    return (
        f"{config.interpreter} was to run the module dspex_worker.forkserver and {how}. Perhaps it is no Python "
        f"interpreter but a launcher of your program, or dspex is not installed beside it: set python = '...' and "
        f"start_method = 'exec'. What it printed is in the error's stderr_tail."
    )
