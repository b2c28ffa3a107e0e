"""Call a subscriber with a service's events, on a thread of its own, over as many connections as it takes."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import ConnectionLost, DspexError, NotRunning, ResourceExhausted
from ..events import Name
from ..pools.streams import Stream
from .client_link import ClientLink

LOOK = 60.0  # seconds of one wait for a connection


class EventSource(Protocol):
    """A client, as the follower of its events sees it."""

    def events(self, *, follow: bool = False, recent: int | None = None) -> Stream: ...


def follow(client: EventSource, link: ClientLink, subscriber: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    """Start it; return what ends it.

    Raises:
        NotRunning: there is no connection.
        ResourceExhausted: the system has no thread.
    """
    follower = EventFollower(client, link, subscriber)
    thread = threading.Thread(target=follower.run, name="dspex-client-events", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # the system has no thread
        follower.close()
        raise ResourceExhausted("threads", "a subscriber of events", remedy="Raise the limit (`ulimit -u`).") from error
    return follower.close


class EventFollower:
    """One subscriber of a service's events."""

    def __init__(self, client: EventSource, link: ClientLink, subscriber: Callable[[dict[str, Any]], object]) -> None:
        self._client = client
        self._link = link
        self._subscriber = subscriber
        self._is_closed = False
        self._stream = client.events(follow=True, recent=0)

    def close(self) -> None:
        """Call the subscriber no more."""
        self._is_closed = True
        self._stream.close()

    def run(self) -> None:
        """In its thread: deliver, over one connection after the other."""
        while not self._is_closed:
            try:
                for event in self._stream:
                    self._subscriber(event)
                if not self._link.is_closed and not self._is_closed and self._link.reconnects:
                    self._again()  # the service ended it in good order: it stops
                else:
                    return
            except (ConnectionLost, NotRunning, concurrent.futures.CancelledError):
                if self._is_closed or self._link.is_closed or not self._again():
                    return

    def _again(self) -> bool:
        """Subscribe over the next connection, and say so; False if there will be none."""
        while not (self._is_closed or self._link.is_closed):
            try:
                self._link.ready(LOOK)
                self._stream = self._client.events(follow=True, recent=0)
            except NotRunning:
                time.sleep(0.01)
                continue
            except DspexError:
                return False
            self._subscriber({"time": time.time(), "name": Name.CLIENT_RECONNECTED.value, "level": "info", "facts": {}})
            return True
        return False
