"""The crew: one pool's worker processes, from their spawning to their burial. Runs on the engine's thread."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from time import monotonic
from typing import Any

from dspex_worker.memory.monitor import MemoryMonitor, MonitoredWorker
from dspex_worker.memory.procfs import descendants

from .. import forks
from ..config import PoolConfig
from ..errors import WorkerBootError
from ..events import Bus, Name
from . import call_errors
from .dispatcher import Dispatcher
from .inbox import Inbox
from .processes.engine import Engine
from .processes.forkserver_process import ForkserverProcess, WorkerPipes
from .processes.orphans import end_of, end_session
from .processes.pool_forkserver import PoolForkserver
from .processes.worker_process import Worker
from .state.instructions import Instruction

EXIT_PATIENCE = 0.02  # seconds that a dead worker's calls wait for the template's word on how it died (T3)
BOOT_PATIENCE = 1.0  # the same for one that was never ready: it has no calls, and why it could not start matters


class PoolWorkers:
    """Starts, watches and buries the workers that the desk asks for."""

    def __init__(self, config: PoolConfig, dispatcher: Dispatcher, engine: Engine, bus: Bus, inbox: Inbox) -> None:
        self.forkserver = PoolForkserver(config, engine, bus, self)
        self.boot_failures = 0  # in a row, without a worker becoming ready
        self._dispatcher = dispatcher
        self._engine = engine
        self._bus = bus
        self._inbox = inbox
        self._waiting: list[tuple[int, int]] = []  # (generation, slot) of workers that wait for a template
        self._is_ending = False
        self._dying: dict[int, float] = {}  # by generation: until when the template may say how it ended
        self._orphans = MemoryMonitor(
            report=self._measured_here, over=self._over_here
        )  # workers whose template is gone (T6)
        dispatcher.start = self.spawn
        dispatcher.kill = self.kill

    def begin(self) -> None:
        self.forkserver.launch()
        self._dispatcher.change(self._dispatcher.state.start)

    def end(self, on_end: Callable[[], None]) -> None:
        """Kill what is left, and let the templates go; `on_end` is called when nothing is left."""
        self._is_ending = True
        self._waiting.clear()
        for worker in tuple(self._dispatcher.workers.values()):
            worker.kill()
            self._bury(worker)
        self.forkserver.end(on_end)

    def end_without_engine(self) -> None:
        """The engine is dying: nobody will look after the processes any more, so end them."""
        for worker in self._dispatcher.workers.values():
            worker.kill()
            worker.forget()
        self.forkserver.end_without_engine()

    def forget(self) -> None:
        """In a forked child of the host: close what is the parent's."""
        self.forkserver.forget()
        for worker in self._dispatcher.workers.values():
            worker.forget()

    def outdated(self) -> list[int]:
        """Give the generations that stay and were made by another template than the present one, or by a lost one."""
        staying = [g for g, record in self._dispatcher.state.workers.items() if record.is_staying]
        return [g for g in staying if g in self._dispatcher.workers and self._is_outdated(self._dispatcher.workers[g])]

    def stderr_tail(self) -> str:
        tails = [worker.stderr.text() for worker in tuple(self._dispatcher.workers.values())]
        return next((tail for tail in tails if tail), "") or self.forkserver.stderr_tail()

    # -- time --

    @property
    def due(self) -> float:
        due = min(self.forkserver.due, self._orphans.due, self._inbox.due)
        return min(due, *self._dying.values()) if self._dying else due

    def tick(self, now: float) -> None:
        for generation in [generation for generation, until in self._dying.items() if until <= now]:
            worker = self._dispatcher.workers.get(generation)
            if worker is not None:  # else it was buried with the one before: their template told of both
                self._bury_unheard(worker)
        self.forkserver.tick(now)
        if now >= self._orphans.due:
            self._orphans.look(now)
        if now >= self._inbox.due:
            self._inbox.tick(now)

    # -- what the desk asks for --

    def spawn(self, generation: int, slot: int) -> None:
        """Start a worker, now or as soon as a template is warm."""
        if generation not in self._dispatcher.state.workers or generation in self._dispatcher.workers:
            return
        template = self.forkserver.template
        if template is None or not self.forkserver.is_warm:
            if (generation, slot) not in self._waiting:
                self._waiting.append((generation, slot))
            return
        concurrency = self._dispatcher.state.workers[generation].concurrency
        worker = Worker(generation, slot, template.config, template, concurrency)
        with self._dispatcher.lock:
            self._dispatcher.workers[generation] = worker
        try:
            with forks.held_back():  # until `forget` knows of the pipes
                self._attach(worker, template.spawn(generation))
        except OSError as error:
            worker.boot_error = {"type": type(error).__name__, "message": str(error)}
            self._bury(worker)

    def _attach(self, worker: Worker, pipes: WorkerPipes) -> None:
        worker.attach(
            pipes,
            self._engine,
            on_output=self._inbox.on_output,
            on_torn=lambda: self._engine.call_soon(lambda: self._condemn(worker)),
            on_death=self._on_death,
        )

    def kill(self, generation: int, reason: str) -> None:
        """Kill a worker and all that it started."""
        worker = self._dispatcher.workers.get(generation)
        if worker is None:  # not spawned yet: there is nothing to kill
            self._waiting = [pair for pair in self._waiting if pair[0] != generation]
            self._dispatcher.change(
                lambda now: self._dispatcher.state.died(generation, now, by_itself=False, cause=reason)
            )
            return
        self._bus.emit(
            Name.WORKER_KILLED, pool=self._dispatcher.name, worker=worker.name, pid=worker.pid, reason=reason
        )
        if worker.template is not None:
            worker.kill()
            worker.template.kill_worker(generation)
        else:
            _kill_with_descendants(worker)
        if worker.pidfd is None:
            self._bury(worker)

    def _condemn(self, worker: Worker) -> None:
        """A signal handler raised in a thread that wrote to it: where its frames begin is uncertain (C5)."""
        worker.protocol_error = worker.protocol_error or "a writer was interrupted in the middle of a frame"
        self._dispatcher.change(lambda now: self._dispatcher.state.condemn(worker.generation, "torn"))

    # -- what templates say: see `PoolForkserver` --

    def warmed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for generation, slot in waiting:
            self.spawn(generation, slot)
        self._release_templates()

    def said(self, template: ForkserverProcess, word: str, facts: dict[str, Any], descriptor: int | None) -> None:
        worker = self._dispatcher.workers.get(facts["generation"])
        if worker is None:
            if descriptor is not None:
                os.close(descriptor)  # it was killed before it was there
            return
        match word:
            case "spawned" if descriptor is None and worker.pidfd is None:  # lost on the way: the host has none left
                worker.boot_error = {"type": "OSError", "message": "no descriptors are left"}
                worker.kill()
                self._bury(worker)
            case "spawned":
                if descriptor is not None:
                    worker.watch(facts["pid"], descriptor)
                self.forkserver.memory_cap.problem = facts["cgroup_problem"] or self.forkserver.memory_cap.problem
                self._bus.emit(Name.WORKER_STARTED, pool=self._dispatcher.name, worker=worker.name, pid=worker.pid)
            case "not_spawned":
                worker.boot_error = {"type": "OSError", "message": facts["error"]}
                self._bury(worker)
            case "memory":
                self._measured(worker, facts["rss"], facts["counted"], facts["peak"])
            case "over":
                worker.over = facts
            case "exit":
                worker.exit = facts
                if worker.generation in self._dying:
                    self._bury(worker)

    def lost(self, template: ForkserverProcess | None, *, was_warm: bool, error: WorkerBootError | None) -> None:
        """A template has ended, or could not start. What it had not started yet is not coming."""
        left = [w for w in self._dispatcher.workers.values() if w.template is template]
        for worker in left:
            worker.template = None
            if worker.pidfd is None and not worker.watch_by_its_word():
                if was_warm and self._is_awaited(worker):
                    self._make_again(worker)
                else:
                    self._bury(worker)
        if error is not None:
            self._dispatcher.boot_error = error
            self.boot_failures += self._dispatcher.config.size
            for generation, _ in self._waiting:
                self._dispatcher.change(self._failed_to_boot(generation))
            self._waiting = []
        elif was_warm and template is not None:
            for worker in left:
                if worker.generation in self._dispatcher.workers:
                    config = worker.config
                    self._orphans.begin(worker.generation, worker.pid, config.memory_cap, config.recycle_after_memory)
            orphans = [w.generation for w in self._dispatcher.workers.values() if w.template is None]
            self._dispatcher.change(
                lambda now: self._dispatcher.state.recycle(now, reason="template_lost", generations=orphans)
            )
        self._dispatcher.notify()

    def _is_awaited(self, worker: Worker) -> bool:
        """Whether nobody has heard of it yet, neither good nor bad."""
        record = self._dispatcher.state.workers.get(worker.generation)
        return record is not None and record.ready_at is None and not record.kill_reason and worker.boot_error is None

    def _make_again(self, worker: Worker) -> None:
        """Its template ended before it told of it: no failure of the worker's. The next template makes it."""
        worker.kill()
        worker.close()
        with self._dispatcher.lock:
            del self._dispatcher.workers[worker.generation]
        self.spawn(worker.generation, worker.slot)

    def _failed_to_boot(self, generation: int) -> Callable[[float], list[Instruction]]:
        return lambda now: self._dispatcher.state.died(generation, now, cause="boot")

    # -- ends --

    def _on_death(self, worker: Worker) -> None:
        """Its pidfd says that it is gone: read what it still had to say, then end its calls (C9)."""
        worker.stop_watching()
        self._inbox.drain(worker)
        worker.drain_stderr()
        if worker.template is None and worker.config.memory_cap is not None and worker.over is None:
            worker.over = self.forkserver.memory_cap.overrun(worker.generation, worker.config.memory_cap)
        if worker.exit is not None or worker.template is None:
            self._bury(worker)
        else:
            record = self._dispatcher.state.workers.get(worker.generation)
            was_ready = record is not None and record.ready_at is not None
            self._dying[worker.generation] = monotonic() + (EXIT_PATIENCE if was_ready else BOOT_PATIENCE)

    def _bury_unheard(self, worker: Worker) -> None:
        """Its template has not said in time how it ended: perhaps it has by now, else /proc does."""
        if worker.template is not None:
            worker.template.hear()
            worker.exit = worker.exit or end_of(worker.pid, worker.template.pid)
        self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """End its calls, take its place from the roster, close its descriptors."""
        if self._dispatcher.workers.get(worker.generation) is not worker:
            return
        self._dying.pop(worker.generation, None)
        for request in tuple(worker.callbacks.values()):
            request.cancel()
        worker.callbacks.clear()
        self._note(worker)
        self._dispatcher.reap_worker(worker, lambda now: self._died(worker, now))
        self._orphans.end(worker.generation)
        if worker.template is None:
            end_session(worker.pid)
            worker.reap()
        worker.close()
        self._release_templates()
        self._dispatcher.notify()

    def _is_outdated(self, worker: Worker) -> bool:
        return worker.template is None or worker.template is not self.forkserver.template

    def _release_templates(self) -> None:
        self.forkserver.release({worker.template for worker in self._dispatcher.workers.values()})

    def _note(self, worker: Worker) -> None:
        """Count a death, or remember why a worker could not start."""
        record = self._dispatcher.state.workers.get(worker.generation)
        if record is None or record.ready_at is not None:
            self.boot_failures = 0
            is_planned = record is not None and record.leave_reason and not record.kill_reason
            self._dispatcher.counts["stops" if is_planned else "deaths"] += 1
            return
        if record.kill_reason in ("", "startup_timeout"):
            worker.kill_reason = record.kill_reason
            self.boot_failures += 1
            self._dispatcher.boot_error = call_errors.boot_error(
                self._dispatcher.name, worker, self.forkserver.stderr_tail(), self._dispatcher.config.startup_timeout
            )

    def _died(self, worker: Worker, now: float) -> list[Instruction]:
        """Tell the state. The pool's lock is held."""
        record = self._dispatcher.state.workers.get(worker.generation)
        worker.kill_reason = record.kill_reason if record is not None else ""
        if self._is_ending and worker.exit is None:
            worker.kill_reason = worker.kill_reason or "stopped"
        return self._dispatcher.state.died(
            worker.generation,
            now,
            by_itself=call_errors.is_by_itself(worker),
            unstarted=worker.unstarted(),
            cause=call_errors.cause_of(worker),
        )

    # -- memory --

    def _measured(self, worker: Worker, rss: int, counted: int, peak: int) -> None:
        worker.rss, worker.counted, worker.peak = rss, counted, peak
        self._dispatcher.change(lambda now: self._dispatcher.state.measured(worker.generation, counted, now))

    def _measured_here(self, watched: MonitoredWorker, counted: int) -> None:
        worker = self._dispatcher.workers[watched.generation]
        self._measured(worker, watched.gauge.rss, counted, watched.gauge.peak)

    def _over_here(self, watched: MonitoredWorker, seen: int) -> None:
        worker = self._dispatcher.workers[watched.generation]
        peak = max(watched.gauge.peak, seen)
        worker.over = {"seen": seen, "peak": peak, "cap": worker.config.memory_cap, "layer": "poll"}
        _kill_with_descendants(worker)


def _kill_with_descendants(worker: Worker) -> None:
    """Kill one whose template is gone, also what left its group; nobody else would find that afterwards."""
    below = []
    for pid in descendants(worker.pid):
        with contextlib.suppress(OSError):  # it has ended
            below.append(os.pidfd_open(pid))
    worker.kill()
    for pidfd in below:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
