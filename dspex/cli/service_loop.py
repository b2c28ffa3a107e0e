"""Run a supervisor as a service: readiness, reloads, a warm stop, a cold one.

    SIGTERM, SIGINT   the first: a warm stop: no new calls, running ones go on for the grace; the second: a cold one
    a client's restart  a warm stop, after which `wants_restart` is true; a stop that comes later undoes that
    a client's stop   a warm stop within its grace; one that comes again changes the grace only if it has one
    SIGUSR1           open the log file anew: somebody has moved it
    SIGHUP            read the settings again and replace the workers one by one; on an error all stays as it was.
                      Where there is a terminal it means that this is gone: a warm stop. Ignored if it was, as by nohup

Signal handlers only put an event into a queue; the main thread acts on one after the other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from ..config import load
from ..control.warm_stop import StopRequest, finish_calls, grace_of, in_flight
from ..errors import DspexError, ResourceExhausted
from ..pools.stats import ready_workers
from .exit_codes import FAILED, OK
from .reload import reload
from .systemd import Notifier

if TYPE_CHECKING:
    from ..control.server import Service
    from ..pools.supervisor import Supervisor

STATUS_INTERVAL = 1.0  # seconds between reports to systemd

logger = logging.getLogger("dspex")


Hangup = Literal["reload", "stop", "ignore"]


def hangup_action(*, is_daemon: bool) -> Hangup:
    """Return what SIGHUP means to this process, by the terminal and the signal's handling that it was started with."""
    if is_daemon:
        return "reload"
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return "ignore"
    return "stop" if _has_terminal() else "reload"


def _has_terminal() -> bool:
    """Return whether a terminal controls this process, wherever its output goes."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class LoopEvent:
    """Something that the main thread must act on."""

    kind: str  # "stop", "reload", "reloaded", "reopen", "ready", "failed"
    request: StopRequest = StopRequest(None)
    source: str = ""  # who asked for it, for the log
    restarts: bool = False  # the process is to begin anew after the stop
    error: BaseException | None = None


class ServiceLoop:
    """Runs one supervisor and its control service until it is asked to stop."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        source: str | None,
        grace: float | None = None,
        on_ready: Callable[[], bool] = lambda: True,
        hangup: Hangup = "reload",
        reopen_log: Callable[[], None] | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._source = source
        self._grace = grace
        self._on_ready = on_ready
        self._hangup = hangup
        self._reopen_log = reopen_log
        self._events: SimpleQueue[LoopEvent] = SimpleQueue()
        self._notifier = Notifier()
        self._is_reloading = False
        self._wants_reload = False
        self.wants_restart = False  # once `run` has returned

    def ask_to_stop(self, grace: float | None) -> None:
        """Stop warmly within `grace` seconds (None: as configured); from any thread, and any number of times."""
        self._events.put(LoopEvent("stop", StopRequest(grace), "a client's request"))

    def ask_to_restart(self, grace: float | None) -> None:
        """Stop as `ask_to_stop` does, and begin anew; from any thread.

        Raises:
            SettingsError: the settings have become wrong: nothing happens.
        """
        load(self._source)
        self._events.put(LoopEvent("stop", StopRequest(grace), "a client's request to restart", restarts=True))

    def run(self, service: Service | None) -> int:
        """Run; returns the exit code: 0 if every call that ran at the stop came to its end, else 1.

        Without a service nobody connects: signals alone stop and reload it.

        Raises:
            SettingsError: the socket cannot be had.
            WorkerBootError: a pool has no worker that starts.
        """
        with self._signals(), service or contextlib.nullcontext():
            self._supervisor.start()
            self._in_thread(self._wait_ready, "dspex-start")
            try:
                cut = self._until_stopped()
            finally:
                self._notifier.send("STOPPING=1")
                self._supervisor.stop(grace=0.0)
            if service is not None:
                service.record_end(cut)
            return FAILED if cut else OK

    # ============================================================================================================

    def _until_stopped(self) -> int:
        """Act on events until one is a stop; return how many calls that cuts."""
        while True:
            # Never without end: a signal that comes just before the wait begins interrupts nothing, and its handler
            # runs when the wait is over.
            event = self._next(STATUS_INTERVAL)
            match event:
                case None:
                    self._notifier.report(self._summary())
                case LoopEvent("stop"):
                    return self._stop_warmly(event)
                case LoopEvent("failed", error=error) if error is not None:
                    raise error
                case LoopEvent("ready"):
                    logger.info("ready: %s", self._summary())
                    self._notifier.send("READY=1", f"STATUS={self._summary()}")
                    if not self._on_ready():
                        logger.warning("the command that started this service in the background has ended; it runs on")
                case LoopEvent("reload"):
                    self._begin_reload()
                case LoopEvent("reloaded"):
                    self._end_reload()
                case LoopEvent("reopen"):
                    self._reopen()
                case _:
                    pass

    def _next(self, timeout: float) -> LoopEvent | None:
        try:
            return self._events.get(timeout=timeout)
        except Empty:
            return None

    def _stop_warmly(self, event: LoopEvent) -> int:
        """Take no new calls and wait for those that run; return how many are cut."""
        self.wants_restart = event.restarts
        self._notifier.send("STOPPING=1", "STATUS=finishing the running calls")
        grace = grace_of(self._supervisor, event.request.grace, self._grace)
        logger.info("stopping on %s: %d calls are running, grace %g s", event.source, self._in_flight(), grace)
        cut = finish_calls(self._supervisor, grace, first=event.request, next_request=self._next_request)
        if cut:
            logger.warning("stopping now: %d calls are cut", cut)
        else:
            logger.info("stopped: every running call came to its end")
        return cut

    def _next_request(self, seconds: float) -> StopRequest | None:
        again = self._next(seconds)
        self._notifier.report(f"stopping; {self._summary()}")
        if again is None or again.kind != "stop":
            return None
        logger.info("asked to stop again, by %s", again.source)
        self.wants_restart = self.wants_restart and again.restarts
        return again.request

    def _in_flight(self) -> int:
        return in_flight(self._supervisor)

    def _wait_ready(self) -> None:
        try:
            self._supervisor.wait_ready()
        except DspexError as error:
            self._events.put(LoopEvent("failed", error=error))
        else:
            self._events.put(LoopEvent("ready"))

    # -- SIGHUP --

    def _begin_reload(self) -> None:
        if self._is_reloading:
            self._wants_reload = True  # once more afterwards: the settings may have changed again
            return
        self._is_reloading = True
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._in_thread(self._reload, "dspex-reload")
        except ResourceExhausted as error:
            logger.error("not reloaded: %s", error)
            self._events.put(LoopEvent("reloaded"))

    def _reload(self) -> None:
        try:
            for remark in reload(self._supervisor, self._source):
                logger.warning("reload: %s", remark)
            logger.info("reloaded: every worker is replaced")
        except Exception as error:  # whatever it is, what runs goes on as it was
            logger.error("not reloaded: %s", str(error) or repr(error))
        finally:
            self._events.put(LoopEvent("reloaded"))

    def _end_reload(self) -> None:
        self._is_reloading = False
        self._notifier.send("READY=1", f"STATUS={self._summary()}")
        if self._wants_reload:
            self._wants_reload = False
            self._begin_reload()

    # -- SIGUSR1 --

    def _reopen(self) -> None:
        if self._reopen_log is None:
            logger.info("SIGUSR1: the log is standard error, there is no file to open anew (see --log-file)")
            return
        self._reopen_log()
        logger.info("the log is opened anew")

    def _summary(self) -> str:
        rows = self._supervisor.stats().values()
        return "; ".join(
            f"{row['pool']}: {row['state']}, {ready_workers(row)}/{row['size']} workers ready, "
            f"{row['in_flight']} running, {row['queued']} queued"
            for row in rows
        )

    def _in_thread(self, function: Callable[[], None], name: str) -> None:
        try:
            threading.Thread(target=function, name=name, daemon=True).start()
        except RuntimeError as error:  # "can't start new thread"
            remedy = "Raise the limit (`ulimit -u`, pids.max of its control group)."
            raise ResourceExhausted("threads", f"the service (pid {os.getpid()})", remedy=remedy) from error

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        wanted: dict[signal.Signals, LoopEvent] = {
            signal.SIGTERM: LoopEvent("stop", StopRequest(None, is_signal=True), "SIGTERM"),
            signal.SIGINT: LoopEvent("stop", StopRequest(None, is_signal=True), "SIGINT"),
            signal.SIGUSR1: LoopEvent("reopen"),
        }
        if self._hangup == "reload":
            wanted[signal.SIGHUP] = LoopEvent("reload")
        elif self._hangup == "stop":
            wanted[signal.SIGHUP] = LoopEvent("stop", StopRequest(None, is_signal=True), "the end of its terminal")

        def handler(number: int, frame: Any) -> None:
            self._events.put(wanted[signal.Signals(number)])  # SimpleQueue.put may be interrupted by itself

        before = {number: signal.signal(number, handler) for number in wanted}
        try:
            yield
        except BaseException:  # also Ctrl-C: the handlers from before come back
            for number, old in before.items():
                signal.signal(number, old)
            raise
        for number in wanted:  # it was told to stop, and the process ends: a late signal must not change its exit code
            signal.signal(number, signal.SIG_IGN)
