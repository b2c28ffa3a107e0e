"""The nursery: where a pool's workers come from. It keeps one template process warm, replaces it, outlives its loss.

Runs on the engine's thread. To import code anew, or with other settings, a candidate is warmed beside the template
that serves: it takes over once it is warm, and if it cannot be, nothing has changed. A template that was replaced stays
until its last worker has gone, because it is their parent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf
from time import monotonic
from typing import Any, Protocol

from ... import forks
from ...config import PoolConfig
from ...errors import WorkerBootError
from ...events import Bus, Name
from .engine import Engine
from .forkserver_process import ForkserverProcess
from .memory_cap import MemoryCap

Outcome = Callable[[WorkerBootError | None], None]

FIRST_RETRY, LONGEST_RETRY = 0.1, 30.0  # seconds until a lost template is started again
STOP_CHECK_EVERY = 1.0  # seconds between looks for templates that a signal stopped


class Parent(Protocol):
    """Who is told what becomes of the templates."""

    def warmed(self) -> None: ...

    def said(self, template: ForkserverProcess, word: str, facts: dict[str, Any], descriptor: int | None) -> None: ...

    def lost(self, template: ForkserverProcess | None, *, was_warm: bool, error: WorkerBootError | None) -> None: ...


class PoolForkserver:
    """The templates of one pool."""

    def __init__(self, config: PoolConfig, engine: Engine, bus: Bus, parent: Parent) -> None:
        self.template: ForkserverProcess | None = None
        self.is_warm = False
        self.retry_at = inf
        self.memory_cap = MemoryCap(config.name)
        self._config = config
        self._engine = engine
        self._bus = bus
        self._parent = parent
        self._candidate: ForkserverProcess | None = None
        self._outcomes: list[Outcome] = []  # to be told what becomes of the candidate
        self._retired: list[ForkserverProcess] = []
        self._warm_by = inf
        self._candidate_by = inf
        self._check_at = inf
        self._failures = 0
        self._is_over = False
        self._on_end: Callable[[], None] | None = None

    def launch(self) -> None:
        """Start a template; workers can be had once the parent is told that it is warm."""
        self.retry_at = inf
        self.is_warm = False
        if self._is_over:
            return
        try:
            branch = self.memory_cap.branch(self._config)
            with forks.held_back():  # until `forget` knows of it
                self.template = self._start(self._config, branch)
        except OSError as error:
            self.template = None
            self._fail(self._error(f"its template process could not be started: {error}"))
            return
        self._warm_by = monotonic() + self._config.startup_timeout

    def renew(self, config: PoolConfig, outcome: Outcome) -> None:
        """Warm a template that imports the code as it is now; `outcome(None)` once it has taken over, else the error.

        A candidate that is not warm yet gives way to a later one, whose outcome is then told to both.
        """
        self._outcomes.append(outcome)
        if self._candidate is not None:
            self._retired.append(self._candidate)
            self._candidate.let_go()
        self._candidate = None
        if self._is_over:
            self._tell(self._error("the pool is being stopped"))
            return
        try:
            branch = self.memory_cap.branch(config)
            with forks.held_back():
                self._candidate = self._start(config, branch)
        except OSError as error:
            self._tell(self._error(f"a new template process could not be started: {error}"))
            return
        self._candidate_by = monotonic() + config.startup_timeout

    def release(self, needed: Collection[ForkserverProcess | None]) -> None:
        """Let go of replaced templates that no worker needs any more."""
        for template in self._retired:
            if template not in needed:
                template.let_go()

    def end(self, on_end: Callable[[], None]) -> None:
        """Let every template go, and call `on_end` when all of them have ended."""
        self._is_over = True
        self.retry_at = self._warm_by = self._candidate_by = self._check_at = inf
        self._on_end = on_end
        self._tell(self._error("the pool is being stopped"))
        for template in self._all():
            template.let_go()
        self._tell_end()

    def kill(self) -> None:
        """End what did not go by itself."""
        for template in self._all():
            template.kill()

    def stderr_tail(self) -> str:
        return self.template.stderr.text() if self.template is not None else ""

    def end_without_engine(self) -> None:
        """End every template, and wait for it."""
        self._is_over = True
        for template in self._all():
            template.end_without_engine()
        self.memory_cap.forget()

    def forget(self) -> None:
        """In a forked child of the host: close what is the parent's."""
        for template in self._all():
            template.forget()
        self.memory_cap.forget()

    # -- time --

    @property
    def due(self) -> float:
        return min(self.retry_at, self._warm_by, self._candidate_by, self._check_at)

    def tick(self, now: float) -> None:
        if now >= self.retry_at:
            self.launch()
        if now >= self._warm_by and self.template is not None:
            self._warm_by = inf
            self.template.kill()
        if now >= self._candidate_by and self._candidate is not None:
            self._candidate_by = inf
            self._candidate.kill()
        if now >= self._check_at:
            self._check_at = now + STOP_CHECK_EVERY
            self._kill_stopped()

    # -- what templates say --

    def _said(self, template: ForkserverProcess, word: str, facts: dict[str, Any], descriptor: int | None) -> None:
        if word == "warm" and template is self._candidate:
            self._take_over(template)
            self._warmed(template, facts)
            self._tell(None)
        elif word == "warm" and template is self.template:
            self._warmed(template, facts)
        elif word == "not_warm":
            template.failure = facts
        elif word != "warm":  # that of one which has been replaced meanwhile says nothing any more
            self._parent.said(template, word, facts, descriptor)

    def _warmed(self, template: ForkserverProcess, facts: dict[str, Any]) -> None:
        self.is_warm = True
        self._warm_by = inf
        self._failures = 0
        template.memory_problem = problem = facts.pop("memory_problem", "")
        self._bus.emit(Name.TEMPLATE_WARMED, pool=self._config.name, **facts)
        if problem and template.config.memory_cap is not None and self.memory_cap.problem:
            reason = f"poll: {problem}; cgroup: {self.memory_cap.problem}"
            self._bus.emit(Name.CAP_UNENFORCED, pool=self._config.name, reason=reason)
        self._parent.warmed()

    def _kill_stopped(self) -> None:
        """A stopped template is as good as lost, and its workers are better off without it (T6)."""
        for template in self._all():
            if template.is_stopped():
                template.kill()

    def _start(self, config: PoolConfig, branch: str | None) -> ForkserverProcess:
        self._check_at = min(self._check_at, monotonic() + STOP_CHECK_EVERY)
        return ForkserverProcess(config, self._engine, cgroup=branch, said=self._said, gone=self._gone)

    def _take_over(self, candidate: ForkserverProcess) -> None:
        if self.template is not None:
            self._retired.append(self.template)
        self.template, self._config = candidate, candidate.config
        self._candidate, self._candidate_by, self.retry_at = None, inf, inf

    def _gone(self, template: ForkserverProcess) -> None:
        """A template's process has ended; its workers, if any, go on without it (T6)."""
        if template in self._retired:
            self._retired.remove(template)
            if not self._is_over:
                self._parent.lost(template, was_warm=True, error=None)
            self._tell_end()
            return
        if template is self._candidate:
            self._candidate, self._candidate_by = None, inf
            error = self._death(template)
            self._bus.emit(Name.TEMPLATE_FAILED, pool=self._config.name, text=str(error)[:500])
            self._tell(error)
            self._tell_end()
            return
        was_warm, self.is_warm, self.template = self.is_warm, False, None
        if self._is_over:
            self._tell_end()
            return
        self._bus.emit(Name.TEMPLATE_LOST, pool=self._config.name, pid=template.pid, warm=was_warm)
        if was_warm:
            self.retry_at = monotonic() + FIRST_RETRY
            self._parent.lost(template, was_warm=True, error=None)
        else:
            self._fail(self._death(template))

    def _fail(self, error: WorkerBootError) -> None:
        """No worker can start: say why, and try again ever later."""
        self._bus.emit(Name.TEMPLATE_FAILED, pool=self._config.name, text=str(error)[:500])
        self._warm_by = inf
        self._failures += 1
        self.retry_at = monotonic() + min(LONGEST_RETRY, FIRST_RETRY * 2**self._failures)
        self._parent.lost(None, was_warm=False, error=error)

    def _death(self, template: ForkserverProcess) -> WorkerBootError:
        described, config = template.failure, template.config
        if described is not None:
            what = f"{described.get('type')}: {described.get('message')}"
        elif not template.has_greeted:
            what = _no_interpreter(template)
        elif template.was_killed:
            what = f"its code was not imported within {config.startup_timeout:g} s (startup_timeout)"
        else:
            what = f"its template process ended with status {template.status} while it imported"
        return self._error(what, template.stderr.text())

    def _error(self, what: str, stderr_tail: str = "") -> WorkerBootError:
        name = self._config.name
        return WorkerBootError(f"Pool {name!r} cannot start workers: {what}", pool=name, stderr_tail=stderr_tail)

    def _all(self) -> list[ForkserverProcess]:
        return [*self._retired, *(one for one in (self.template, self._candidate) if one is not None)]

    def _tell(self, error: WorkerBootError | None) -> None:
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            outcome(error)

    def _tell_end(self) -> None:
        if self._is_over and self._on_end is not None and not self._all():
            on_end, self._on_end = self._on_end, None
            self.memory_cap.release()
            on_end()


def _no_interpreter(template: ForkserverProcess) -> str:
    """Say that what was to run the worker package never came to it."""
    config = template.config
    how = f"ended with status {template.status}"
    if template.was_killed:
        how = f"had not done so within {config.startup_timeout:g} s (startup_timeout) and was killed"
    return (
        f"{config.python} was to run the module dspex_worker.forkserver and {how}. Perhaps it is no Python interpreter "
        f"but a launcher of your program, or dspex is not installed beside it: set python = '...' and "
        f"start_method = 'exec'. What it printed is in the error's stderr_tail."
    )
