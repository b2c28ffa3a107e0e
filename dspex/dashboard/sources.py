"""What a page looks at: a supervisor of this process, or one that answers on a control socket. Blocking."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol

from .. import __version__, defaults
from ..control.command_client import DirectClient
from ..control.event_log import event_row
from ..control.job_handlers import jobs_of
from ..errors import DspexError
from ..lm.redaction import redact
from ..pools.supervisor import Supervisor

Row = dict[str, Any]
LOOK_AGAIN_S = 1.0  # after a lost connection


class Source(Protocol):
    """Something to show."""

    def look(self, limit: int) -> Row:
        """Return {"status", "calls", "sessions", "clients"}, with `limit` rows of each at most; raises DspexError."""
        ...

    def job_events(self, id: str) -> list[Row]:
        """Return what has happened in a job; raises DspexError."""
        ...

    def cancel_call(self, id: int) -> bool:
        """End a call; False if it has ended. Raises DspexError."""
        ...

    def follow(self, take: Callable[[Row], object]) -> Callable[[], None]:
        """Have `take(row)` called for recent events and all that come, on another thread; return what ends that."""
        ...

    def close(self) -> None:
        """Look no more."""
        ...


class SupervisorSource:
    """A supervisor of this process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._since = time.time()

    def look(self, limit: int) -> Row:
        supervisor = self._supervisor
        pools: Row = {name: dict(stats) for name, stats in supervisor.stats().items()}
        health: Row = {name: dict(row) for name, row in supervisor.health().items()}
        for row in health.values():
            row["reason"] = redact(row["reason"])
        return {
            "status": {
                "supervisor": {
                    "name": f"process {os.getpid()}",
                    "pid": os.getpid(),
                    "version": __version__,
                    "uptime_s": time.time() - self._since,
                    "settings": supervisor.config.source,
                },
                "usage": defaults.usage(),
                "pools": pools,
                "health": health,
                "jobs": jobs_of(supervisor).rows(),
            },
            "calls": list(supervisor.calls(limit=limit)),
            "sessions": list(supervisor.sessions(limit=limit)),
            "clients": list(supervisor.clients()),
        }

    def job_events(self, id: str) -> list[Row]:
        return jobs_of(self._supervisor).job(id).recent()

    def cancel_call(self, id: int) -> bool:
        return self._supervisor.cancel_call(id)

    def follow(self, take: Callable[[Row], object]) -> Callable[[], None]:
        return self._supervisor.on_event(lambda event: take(event_row(event)))

    def close(self) -> None:
        """Nothing is held."""


class ServiceSource:
    """A supervisor in another process; every look after a lost connection tries to connect again."""

    def __init__(self, connect: Callable[[], DirectClient]) -> None:
        self._connect = connect
        self._client: DirectClient | None = None

    def look(self, limit: int) -> Row:
        with self._connected() as client:
            return {
                "status": client.status(),
                "calls": client.calls(limit=limit),
                "sessions": client.sessions(limit=limit),
                "clients": client.clients(),
            }

    def job_events(self, id: str) -> list[Row]:
        with self._connected() as client:
            return list(client.job_events(id, follow=False))

    def cancel_call(self, id: int) -> bool:
        with self._connect() as client:  # the connection that looks is another thread's
            return client.cancel_call(id)

    def follow(self, take: Callable[[Row], object]) -> Callable[[], None]:
        following = FollowedEvents(self._connect, take)
        return following.end

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def _connected(self) -> Generator[DirectClient]:
        """Yield the connection; one that fails is given up, as what it answers next may be another question's."""
        if self._client is None:
            self._client = self._connect()
        try:
            yield self._client
        except BaseException:  # also a cancelled one: its answer is still under way; raised again
            self.close()
            raise


class FollowedEvents:
    """The events of a service, on a thread and a connection of their own, and again after the service came back."""

    def __init__(self, connect: Callable[[], DirectClient], take: Callable[[Row], object]) -> None:
        self._connect = connect
        self._take = take
        self._client: DirectClient | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dspex-dashboard-events", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._client is not None:
            self._client.interrupt()
        self._thread.join(timeout=LOOK_AGAIN_S)

    def _run(self) -> None:
        newest = 0.0
        while not self._ended.is_set():
            try:
                with self._connect() as self._client:
                    for row in self._client.events(follow=True, recent=None):
                        at = float(row.get("time", newest))
                        if at >= newest:  # after a new connection the recent ones come again
                            newest = at
                            self._take(row)
                        if self._ended.is_set():
                            return
            except DspexError:
                pass  # the page says that the service is away: every look finds it
            self._ended.wait(LOOK_AGAIN_S)
