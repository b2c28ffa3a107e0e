"""Monitor the memory of a pool's workers, each as often as it could grow past the cap. In the fork server.

How soon a worker is looked at again follows from its room under the cap: no sooner than 10 ms, no later than 50 ms, and
before something that grows by 4 GiB/s could be over it. So the cap is exceeded by no more than what is allocated in
10 ms and the time that the kill takes, up to that speed. What a worker starts is found by the pids that were assigned
since the last look, and, whatever these show, every half second. Without a cap, a worker is looked at twice a second.
Of one that has not run since, only the clock is read: idle workers cost little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic

from . import rlimits
from .procfs import NewPids, parent_of
from .tree_gauge import TreeGauge

FASTEST = 4 * 1024**3  # bytes per second
SOONEST, LATEST = 0.01, 0.05  # seconds between looks at a worker under a cap
LOOK_SHARE = 4  # nor sooner than so many times what the last look took: a fifth of a core at most, for exact figures
UNCAPPED = 0.5
REST_STEPS = (SOONEST, LATEST / 2, LATEST, UNCAPPED)
RESCAN_EVERY = 0.5  # seconds between looks for members and for what resident sizes do not show
UNCAPPED_RESCAN = 2.0
LONGEST_REST = 5.0  # seconds after which also a worker that did not run is looked at: others may write into its files
REPORT_EVERY = 0.5
REPORTED_CHANGE = 1024 * 1024  # bytes; less is not reported


@dataclass
class MonitoredWorker:
    """One monitored worker; `over` is called once, with the sizes seen."""

    generation: int
    gauge: TreeGauge
    cap: int | None
    limit: int | None  # the smaller of the cap and the size at which it is replaced
    next_look: float = 0.0
    next_rescan: float = 0.0
    next_report: float = 0.0
    rest_until: float = 0.0
    is_known: bool = False  # it has not run since its last rescan began, and what was found is reported
    counted: int = 0  # at the last look
    reported: tuple[int, int] = (0, 0)  # what counts, and the resident size, which may grow alone
    is_over: bool = False


class MemoryMonitor:
    """The memory of one pool's workers."""

    def __init__(
        self,
        *,
        report: Callable[[MonitoredWorker, int], None],
        over: Callable[[MonitoredWorker, int], None],
    ) -> None:
        self._report = report
        self._over = over
        self._new_pids: NewPids | None = None
        self._watched: dict[int, MonitoredWorker] = {}

    def begin(self, generation: int, pid: int, cap: int | None, soft: int | None) -> MonitoredWorker:
        """Watch a process and all that it starts; `soft` is the size at which it is to be replaced."""
        limit = min((limit for limit in (cap, soft) if limit is not None), default=None)
        watched = MonitoredWorker(generation, TreeGauge(pid, is_thorough=cap is not None), cap, limit)
        self._watched[generation] = watched
        if self._new_pids is None and cap is not None:
            self._new_pids = NewPids()
        return watched

    def end(self, generation: int) -> None:
        """Stop monitoring this worker."""
        watched = self._watched.pop(generation, None)
        if watched is not None:
            watched.gauge.close()
        if self._new_pids is not None and not self._watched:
            self._new_pids.close()
            self._new_pids = None

    @property
    def due(self) -> float:
        """When the next worker is to be looked at."""
        return min([watched.next_look for watched in self._watched.values()]) if self._watched else inf

    def look(self, now: float) -> None:
        """Look at those that are due, or about to be: one wake-up for several."""
        due = [watched for watched in self._watched.values() if watched.next_look <= now + SOONEST / 2]
        due = [watched for watched in due if not self._is_at_rest(watched, now)]
        if due and self._new_pids is not None:
            self._admit(self._new_pids)
        for watched in due:
            self._look_at(watched)

    def _is_at_rest(self, watched: MonitoredWorker, now: float) -> bool:
        """Whether all that it did is known and reported. A worker that waits for calls costs one reading of a clock."""
        if watched.gauge.has_run() or now >= watched.rest_until:
            watched.is_known = False  # until the next rescan
            watched.rest_until = now + LONGEST_REST
        if not watched.is_known:
            return False
        wanted = _interval(watched.cap, watched.counted)  # it may wake and grow as fast as any other
        interval = max(step for step in REST_STEPS if step <= wanted)
        watched.next_look = now - now % interval + interval  # at the same time as the others that rest: one wake-up
        return True

    def _admit(self, new_pids: NewPids) -> None:
        """Find the trees of the processes that were started since the last time."""
        pids = new_pids.since()
        if pids is None:
            for watched in self._watched.values():
                watched.next_rescan = 0.0
            return
        for pid in pids:
            parent = parent_of(pid)
            for watched in self._watched.values() if parent else ():
                watched.gauge.admit(pid, parent)

    def _look_at(self, watched: MonitoredWorker) -> None:
        now = monotonic()
        if now >= watched.next_rescan:
            self._rescan(watched, now)
        watched.gauge.look()
        watched.counted = counted = watched.gauge.counted(watched.limit)
        sizes = (counted, watched.gauge.rss)
        after = monotonic()
        watched.next_look = after + max(_interval(watched.cap, counted), LOOK_SHARE * (after - now))
        if watched.cap and counted > watched.cap:
            if not watched.is_over:
                watched.is_over = True
                self._over(watched, counted)
        elif any(abs(size - known) >= REPORTED_CHANGE for size, known in zip(sizes, watched.reported, strict=True)):
            self._report_change(watched, sizes, now)

    def _report_change(self, watched: MonitoredWorker, sizes: tuple[int, int], now: float) -> None:
        """Report a change, or see to it that the next look does."""
        if now < watched.next_report:
            watched.is_known = False
            return
        watched.next_report = now + REPORT_EVERY
        watched.reported = sizes
        self._report(watched, sizes[0])

    def _rescan(self, watched: MonitoredWorker, now: float) -> None:
        watched.is_known = True
        watched.gauge.rescan()
        if watched.cap:
            for pid, threads in watched.gauge.threads.items():
                rlimits.grant_stacks(pid, watched.cap, threads)
        watched.next_rescan = now + (RESCAN_EVERY if watched.cap else UNCAPPED_RESCAN)


def _interval(cap: int | None, counted: int) -> float:
    """Return the seconds until the next look."""
    return UNCAPPED if cap is None else min(LATEST, max(SOONEST, (cap - counted) / FASTEST))
