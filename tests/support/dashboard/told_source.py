"""A source that tells what a test wants the page to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspex.errors import NotRunning
from dspex.usage_stats import no_usage

Row = dict[str, Any]


class ToldSource:
    """Shows one pool, job, call, session and client of the given text; `is_away` loses it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.is_away = False
        self.cancelled: list[int] = []
        self.take: Callable[[Row], object] = lambda row: None

    def look(self, limit: int) -> Row:
        if self.is_away:
            raise NotRunning("/run/dspex.sock", self.text)
        text = self.text
        pool = {
            "pool": text,
            "state": text,
            "size": 1,
            "workers": [self._worker()],
            "queued": 1,
            "queue_limit": 10,
            "in_flight": 1,
            "sessions": 1,
            "counts": {"answered": 5, "failed": 0, "expired": 0, "cancelled": 0, "deaths": 1},
            "usage": no_usage(),
            "memory": {"cap_bytes": 100 * 2**20, "is_enforced": False, "layers": [text], "missing": [text]},
            "poison": {text: 3.0},
            "last_boot_error": text,
        }
        tokens = {"prompt_tokens": 10, "completion_tokens": 5}
        job: Row = {"id": "j1", "trial": 2, "trials": 3, "best": 0.5, "baseline": 0.1, "requests": 7, "cost": 0.25}
        return {
            "status": {
                "supervisor": {"name": text, "pid": 1, "uptime_s": 5.0, "version": text, "settings": text},
                "usage": {**no_usage(), **tokens, "requests": 3, "cost_usd": 1.5, "models": {text: tokens}},
                "pools": {text: pool},
                "health": {text: {"pool": text, "is_ready": False, "state": text, "reason": text}},
                "jobs": [job | dict.fromkeys(("program", "optimizer", "state", "stage", "message"), text)],
            },
            "calls": [
                {"id": 7, "age_s": 3.0, "deadline_s": None, "pid": 1}
                | dict.fromkeys(("pool", "command", "program", "phase", "worker", "session", "client"), text)
            ],
            "sessions": [
                {"running": 0, "waiting": 0, "is_stateful": True, "is_durable": False, "idle_s": 1.0}
                | dict.fromkeys(("pool", "session", "client", "worker", "lost"), text)
            ],
            "clients": [
                {"client": text, "role": text, "pid": 1, "age_s": 1.0, "idle_s": 1.0, "requests": 0, "unread_bytes": 0}
            ],
        }

    def job_events(self, id: str) -> list[Row]:
        return [{"kind": "candidate", "facts": {"candidate": {"score": score}}} for score in (0.1, 0.5, 0.3)]

    def cancel_call(self, id: int) -> bool:
        self.cancelled.append(id)
        return True

    def follow(self, take: Callable[[Row], object]) -> Callable[[], None]:
        self.take = take
        return lambda: None

    def close(self) -> None:
        """Nothing is held."""

    def _worker(self) -> Row:
        numbers = dict.fromkeys(("running", "abandoned", "queued", "sessions", "answered", "age_s"), 1)
        sizes = {"rss_bytes": 90 * 2**20, "counted_bytes": 80 * 2**20, "peak_bytes": 95 * 2**20}
        return {"worker": self.text, "generation": 1, "pid": 1, "phase": self.text, **numbers, **sizes}
