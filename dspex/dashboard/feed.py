"""Look at a source once a second, whatever happens there, and keep the newest picture of it for every open page."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DspexError
from .job_curves import JobCurves
from .pool_history import PoolHistory
from .seen_events import SeenEvents
from .sources import Source

Row = dict[str, Any]
EVERY_S = 1.0
READ_MOST = 1000  # rows of calls that one look reads
ROWS_MOST = 60  # of each table that a page gets

logger = logging.getLogger("dspex")


class Feed:
    """The newest picture of one source; `start` and `stop` it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._events = SeenEvents()
        self._histories: dict[str, PoolHistory] = {}
        self._curves = JobCurves(source)
        self._came, self._came_at, self._event_rate = 0, time.monotonic(), 0.0
        self._newest: Row = {"number": 0, "problem": "not looked yet"}
        self._has_newer = threading.Condition()
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, name="dspex-dashboard", daemon=True)
        self._unfollow: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._unfollow = self._source.follow(self._events.take)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; waits for a look that is under way."""
        with self._has_newer:
            self._is_ended = True
            self._has_newer.notify_all()
        if self._unfollow is not None:
            self._unfollow()
        self._thread.join()
        self._source.close()

    @property
    def is_ended(self) -> bool:
        """Whether there will be no other picture."""
        return self._is_ended

    @property
    def newest(self) -> Row:
        """The newest picture; its `number` rises."""
        return self._newest

    def look(self) -> Row:
        """Return a picture of the source as it is now; of one that cannot be seen, why."""
        try:
            return {"problem": "", **self._picture(self._source.look(READ_MOST))}
        except DspexError as error:
            return {"problem": str(error)}

    def _run(self) -> None:
        while not self._is_ended:
            try:
                picture = self.look()
            except Exception:  # the page says so, and the next look may succeed
                logger.exception("the dashboard could not look")
                picture = {"problem": "The page's server failed; its log says why."}
            self._newest = {"number": self._newest["number"] + 1, "at": time.time(), **picture}
            with self._has_newer:
                self._has_newer.wait_for(lambda: self._is_ended, EVERY_S)

    def _picture(self, seen: Row) -> Row:
        status, now = seen["status"], time.monotonic()
        events = self._events.shown()
        passed = now - self._came_at
        if passed >= EVERY_S / 2:
            self._event_rate = (events["came"] - self._came) / passed
            self._came, self._came_at = events["came"], now
        self._histories = {name: self._histories.get(name) or PoolHistory() for name in status["pools"]}
        return {
            "supervisor": status["supervisor"],
            "usage": status["usage"],
            "pools": [self._pool(name, stats, status["health"], seen, now) for name, stats in status["pools"].items()],
            "calls": seen["calls"][:ROWS_MOST],
            "calls_seen": len(seen["calls"]),
            "sessions": seen["sessions"][:ROWS_MOST],
            "sessions_seen": len(seen["sessions"]),
            "clients": seen["clients"][:ROWS_MOST],
            "clients_seen": len(seen["clients"]),
            "jobs": self._curves.rows(status["jobs"], now),
            "events": events,
            "event_rate": self._event_rate,
        }

    def _pool(self, name: str, stats: Any, health: Mapping[str, Any], seen: Row, now: float) -> Row:
        ages = [row["age_s"] for row in seen["calls"] if row["pool"] == name]
        self._histories[name].add(stats, ages, now)
        return {
            **{key: value for key, value in stats.items() if key not in ("processors", "lifeline", "reaper", "usage")},
            "usage": {key: value for key, value in stats["usage"].items() if key != "models"},
            "reason": health.get(name, {}).get("reason", ""),
            "history": self._histories[name].shown(),
        }
