"""Start and stop a pool for its supervisor."""

from __future__ import annotations

import threading

from ..errors import PoolClosed, WorkerBootError
from .dispatcher import Dispatcher
from .processes.engine import Engine
from .workers import PoolWorkers

END_PATIENCE = 2.0  # seconds that stop() gives the processes to end once they were killed


class PoolLifecycle:
    """The life of one pool, from its first worker to its last."""

    def __init__(self, dispatcher: Dispatcher, pool_workers: PoolWorkers, engine: Engine) -> None:
        self._dispatcher = dispatcher
        self._pool_workers = pool_workers
        self._engine = engine
        self._is_stopped = False

    def start(self) -> None:
        """Start the workers; returns at once."""
        self._engine.call_soon(self._begin)

    def _begin(self) -> None:
        self._engine.add_timed(self._dispatcher)
        self._engine.on_death(self._engine_died)
        self._pool_workers.begin()

    def _engine_died(self, cause: BaseException) -> None:
        self._dispatcher.fail_all(cause)
        self._pool_workers.end_without_engine()

    def emit_events(self) -> None:
        """Emit the events of all that has happened so far; on the engine's thread."""
        self._dispatcher.catch_up()

    def wait_ready(self, timeout: float | None) -> None:
        """Wait until one worker is ready; `timeout` None means startup_timeout.

        Raises:
            WorkerBootError: none can start; it holds the end of what it printed.
        """
        dispatcher = self._dispatcher
        timeout = dispatcher.config.startup_timeout if timeout is None else timeout
        if not dispatcher.changes.wait_until(lambda: dispatcher.is_serving() or self._is_hopeless(), timeout):
            raise WorkerBootError(
                f"Pool {dispatcher.name!r} has no ready worker after {timeout:g} s. Its workers are still starting; "
                f"raise startup_timeout, or look at what they print.",
                pool=dispatcher.name,
                stderr_tail=self._pool_workers.stderr_tail(),
            )
        if not dispatcher.is_serving():
            raise dispatcher.boot_error or dispatcher.closed()

    def _is_hopeless(self) -> bool:
        """Whether waiting for the first worker is in vain."""
        if self._is_stopped:
            return True
        dispatcher = self._dispatcher
        return dispatcher.boot_error is not None and self._pool_workers.reaper.boot_failures >= dispatcher.config.size

    def close(self) -> None:
        """Take no more calls; those that were not sent end with PoolClosed."""
        self._dispatcher.change(self._dispatcher.state.close)

    def stop(self, grace: float) -> None:
        """Let running calls go on for `grace` seconds, and idle workers tear down; then end all, and the fork server.

        Raises:
            PoolClosed: the fork server does not end.
        """
        dispatcher = self._dispatcher
        if dispatcher.broken is not None:  # its processes ended with the engine
            return
        dispatcher.changes.wait_until(dispatcher.is_idle, grace)
        dispatcher.change(dispatcher.state.stop_workers)
        dispatcher.changes.wait_until(self._is_torn_down, dispatcher.config.teardown_timeout)
        self._is_stopped = True
        self._end_processes()

    def _is_torn_down(self) -> bool:
        """Whether no worker is left but those that are killed anyway: by the pool, or with their calls."""
        return all(worker.running or worker.kill_reason for worker in tuple(self._dispatcher.state.workers.values()))

    def _end_processes(self) -> None:
        ended = threading.Event()
        self._engine.call_soon(lambda: self._pool_workers.end(ended.set))
        if ended.wait(END_PATIENCE) or not self._engine.is_alive:
            return
        self._engine.call_soon(self._pool_workers.forkserver.kill)
        if not ended.wait(END_PATIENCE):
            name = self._dispatcher.name
            raise PoolClosed(f"The fork server of pool {name!r} does not end, though it was killed.")

    def after_fork(self) -> None:
        """In a forked child of the host: close what is the parent's."""
        self._pool_workers.after_fork()
