"""Start, monitor and reap a pool's worker processes. Runs on the engine's thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from .. import forks
from ..config import PoolConfig
from ..errors import WorkerBootError
from ..events import Bus, Name
from .dispatcher import Dispatcher
from .inbox import Inbox
from .orphan_memory import OrphanMemory
from .processes.engine import Engine
from .processes.forkserver_process import ForkserverMessage, ForkserverProcess
from .processes.orphans import kill_with_descendants
from .processes.pool_forkserver import ForkserverEvent, ForkserverFailed, ForkserverLost, ForkserverWarm, PoolForkserver
from .reaper import Reaper
from .state.instructions import Kill, Start
from .worker import Worker


class PoolWorkers:
    """The worker processes that the pool's state requests, from their start to their end."""

    def __init__(self, config: PoolConfig, dispatcher: Dispatcher, engine: Engine, bus: Bus, inbox: Inbox) -> None:
        self.forkserver = PoolForkserver(config, engine, bus, self._on_forkserver_event)
        self._dispatcher = dispatcher
        self._engine = engine
        self._bus = bus
        self._inbox = inbox
        self._waiting: list[Start] = []  # for a warm fork server
        self._orphans = OrphanMemory(engine, self._measured)
        self.reaper = Reaper(dispatcher, inbox, self.forkserver, self._orphans, engine)
        dispatcher.deferred.on(Start, self._on_start)
        dispatcher.deferred.on(Kill, self._on_kill)

    def begin(self) -> None:
        """Launch the fork server, and request workers from the state."""
        self.forkserver.launch()
        self._dispatcher.change(self._dispatcher.state.start)

    def outdated(self) -> list[int]:
        """Return the generations that stay but are not from the present fork server: it was replaced, or lost."""
        current, workers = self.forkserver.current, self._dispatcher.workers
        staying = [g for g, record in self._dispatcher.state.workers.items() if record.is_staying and g in workers]
        return [g for g in staying if workers[g].forkserver is None or workers[g].forkserver is not current]

    def stderr_tail(self) -> str:
        """Return the end of what a worker, or else the fork server, has printed."""
        tails = [worker.stderr.text() for worker in tuple(self._dispatcher.workers.values())]
        return next((tail for tail in tails if tail), "") or self.forkserver.stderr_tail()

    # -- the end of the pool -----------------------------------------------------------------------------------

    def end(self, on_end: Callable[[], None]) -> None:
        """Kill the remaining workers, and release the fork servers; `on_end` is called when nothing is left."""
        self.reaper.is_ending = True
        self._waiting.clear()
        for worker in tuple(self._dispatcher.workers.values()):
            worker.kill()
            self.reaper.reap(worker)
        self.forkserver.end(on_end)

    def end_without_engine(self) -> None:
        """End all processes as the engine dies: nobody will look after them any more."""
        for worker in self._dispatcher.workers.values():
            worker.kill()
            worker.after_fork()
        self.forkserver.end_without_engine()

    def after_fork(self) -> None:
        """In a forked child of the host: close what is the parent's."""
        self.forkserver.after_fork()
        for worker in self._dispatcher.workers.values():
            worker.after_fork()

    # -- what the state asks for -------------------------------------------------------------------------------

    def _on_start(self, start: Start) -> None:
        """Spawn a worker, now or as soon as a fork server is warm."""
        generation = start.generation
        if generation not in self._dispatcher.state.workers or generation in self._dispatcher.workers:
            return
        forkserver = self.forkserver.current
        if forkserver is not None and self.forkserver.is_warm:
            self._spawn(start, forkserver)
            self.forkserver.catch_up()
        elif start not in self._waiting:
            self._waiting.append(start)

    def _spawn(self, start: Start, forkserver: ForkserverProcess) -> None:
        generation = start.generation
        concurrency = self._dispatcher.state.workers[generation].concurrency
        worker = Worker(generation, start.slot, forkserver, self._engine, concurrency=concurrency)
        with self._dispatcher.lock:
            self._dispatcher.workers[generation] = worker
        try:
            with forks.held_back():  # until `after_fork` knows of the pipes
                pipes = forkserver.spawn(generation)
                self._inbox.watch_output(worker)
                worker.attach(
                    pipes, on_end=partial(self.reaper.on_death, worker), on_torn=partial(self._on_torn, worker)
                )
                self._engine.poller.register(pipes.stdout, lambda _: self._inbox.on_output(worker))
        except OSError as error:
            self._not_started(worker, type(error).__name__, str(error))

    def _not_started(self, worker: Worker, kind: str, message: str) -> None:
        worker.boot_error = {"type": kind, "message": message}
        self.reaper.reap(worker)

    def _on_kill(self, kill: Kill) -> None:
        """Kill a worker and all that it started."""
        worker = self._dispatcher.workers.get(kill.generation)
        if worker is None:
            self._unqueue(kill)
            return
        self._bus.emit(
            Name.WORKER_KILLED, pool=self._dispatcher.name, worker=worker.name, pid=worker.pid, reason=kill.reason
        )
        if worker.forkserver is not None:
            worker.kill()
            worker.forkserver.kill_worker(kill.generation)
        else:
            kill_with_descendants(worker)
        if worker.pidfd is None:
            self.reaper.reap(worker)

    def _unqueue(self, kill: Kill) -> None:
        """Drop the request for a worker that is not spawned yet: there is nothing to kill."""
        self._waiting = [start for start in self._waiting if start.generation != kill.generation]
        died = self._dispatcher.state.died
        self._dispatcher.change(lambda now: died(kill.generation, now, by_itself=False, cause=kill.reason))

    def _on_torn(self, worker: Worker) -> None:
        """Kill a worker whose pipe a signal handler's exception left torn: where its frames begin is uncertain (C5)."""
        self._engine.call_soon(lambda: self._kill_torn(worker))

    def _kill_torn(self, worker: Worker) -> None:
        worker.protocol_error = worker.protocol_error or "a writer was interrupted in the middle of a frame"
        self._dispatcher.change(lambda now: self._dispatcher.state.kill(worker.generation, "torn"))

    # -- what the fork server reports --------------------------------------------------------------------------

    def _on_forkserver_event(self, event: ForkserverEvent) -> None:
        match event:
            case ForkserverWarm():
                self._on_warm()
            case ForkserverLost(process=process):
                self._on_forkserver_lost(process)
            case ForkserverFailed(error=error):
                self._on_forkserver_failed(error)
            case ForkserverMessage():
                self._on_message(event)

    def _on_warm(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in waiting:
            self._on_start(start)
        self.reaper.release_forkservers()

    def _on_message(self, message: ForkserverMessage) -> None:
        facts, descriptor = message.facts, message.descriptor
        worker = self._dispatcher.workers.get(facts["generation"])
        if worker is None:
            if descriptor is not None:
                os.close(descriptor)  # it was killed before it was there
            return
        match message.kind:
            case "spawned":
                self._on_spawned(worker, facts["pid"], descriptor, facts["cgroup_problem"])
            case "not_spawned":
                self._not_started(worker, "OSError", facts["error"])
            case "memory":
                self._measured(worker, facts["rss"], facts["counted"], facts["peak"])
            case "over":
                worker.over = facts
            case "exit":
                worker.exit = facts
                self.reaper.on_exit_known(worker)
            case _:
                pass

    def _on_spawned(self, worker: Worker, pid: int, pidfd: int | None, cgroup_problem: str) -> None:
        if pidfd is not None:
            worker.watch(pid, pidfd)
        elif worker.pidfd is None:  # lost on the way: the host has none left
            worker.kill()
            self._not_started(worker, "OSError", "no descriptors are left")
            return
        self.forkserver.memory_cap.problem = cgroup_problem or self.forkserver.memory_cap.problem
        self._bus.emit(Name.WORKER_STARTED, pool=self._dispatcher.name, worker=worker.name, pid=worker.pid)

    def _on_forkserver_failed(self, error: WorkerBootError) -> None:
        self._dispatcher.boot_error = error
        self.reaper.boot_failures += self._dispatcher.config.size
        waiting, self._waiting = self._waiting, []
        for start in waiting:
            self._dispatcher.change(partial(self._dispatcher.state.died, start.generation, cause="boot"))
        self._dispatcher.changes.notify()

    def _on_forkserver_lost(self, process: ForkserverProcess) -> None:
        """Replace its workers, which go on meanwhile; those that it had not started yet are not coming (T6)."""
        for worker in [w for w in self._dispatcher.workers.values() if w.forkserver is process]:
            worker.forkserver = None
            if worker.pidfd is not None or worker.watch_reported_pid():
                self._orphans.begin(worker)
            elif self._is_awaited(worker):
                self._spawn_again(worker)
            else:
                self.reaper.reap(worker)
        orphans = [w.generation for w in self._dispatcher.workers.values() if w.forkserver is None]
        recycle = self._dispatcher.state.recycle
        self._dispatcher.change(lambda now: recycle(now, reason="forkserver_lost", generations=orphans))
        self._dispatcher.changes.notify()

    def _is_awaited(self, worker: Worker) -> bool:
        """Return whether nothing was reported of it yet, neither good nor bad."""
        record = self._dispatcher.state.workers.get(worker.generation)
        return record is not None and record.ready_at is None and not record.kill_reason and worker.boot_error is None

    def _spawn_again(self, worker: Worker) -> None:
        """Spawn a worker anew whose fork server ended before it reported it: no failure of the worker's."""
        worker.kill()
        worker.close()
        with self._dispatcher.lock:
            del self._dispatcher.workers[worker.generation]
        self._on_start(Start(worker.generation, worker.slot))

    def _measured(self, worker: Worker, rss: int, counted: int, peak: int) -> None:
        worker.rss, worker.counted, worker.peak = rss, counted, peak
        self._dispatcher.change(lambda now: self._dispatcher.state.measured(worker.generation, counted, now))
