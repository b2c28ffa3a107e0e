"""Know which sessions of a client live where, and keep copies of the durable ones. Any thread.

A session that is the client's own ends with its connection; a shared one with the service's process. When the client is
connected anew, a durable session is opened again with the state that was copied here; one whose state was there alone
is lost, and says so, once its next call comes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import SessionLost
from .request_fields import Fields

KNOWN_MOST: Final = 10_000  # sessions; the least recently used are forgotten
Home = tuple[str, object]  # where its state is: in a connection, by its epoch, or in a service, by its pid


@dataclass(slots=True)
class KnownSession:
    """One session, as far as this client knows."""

    home: Home
    is_durable: bool = False
    is_stateful: bool = False
    generation: int = 0
    state: dict[str, bytes] = field(default_factory=dict)  # of a durable one: its packed values


class ClientSessions:
    """The sessions of one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str, bool], KnownSession] = OrderedDict()

    def opened(self, fields: Fields, home: Home) -> None:
        """Note that a session was opened."""
        with self._lock:
            key = _key(fields, "id")
            known = self._known.get(key)
            if known is None or known.home != home or fields.get("fresh"):
                known = self._known[key] = KnownSession(home)
            known.is_durable = known.is_durable or bool(fields.get("durable"))
            self._tidy(key)

    def to_reopen(self, fields: Fields, home: Home) -> Fields | None:
        """Return the request that opens a call's session again, with its state; None if it needs none.

        Raises:
            SessionLost: its state was in a connection, or a service, that has ended.
        """
        if fields.get("session") is None:
            return None
        with self._lock:
            known = self._known.get(_key(fields, "session"))
            if known is None or known.home == home:
                return None
            if known.is_stateful and not known.is_durable:
                raise SessionLost(
                    pool=str(fields["pool"]),
                    session=str(fields["session"]),
                    reason="the connection to its service ended",
                    generation=known.generation,
                )
            if not known.is_durable:
                known.home = home
                return None
            names = {"pool": fields["pool"], "id": fields["session"], "shared": fields.get("shared", False)}
            return {**names, "durable": True, "state": dict(known.state)}

    def reopened(self, fields: Fields, home: Home) -> None:
        """Note that `to_reopen`'s request was answered."""
        with self._lock:
            if (known := self._known.get(_key(fields, "id"))) is not None:
                known.home = home

    def answered(self, fields: Fields, notes: Mapping[str, Any], home: Home) -> None:
        """Note what the answer to a call says of its session."""
        if fields.get("session") is None:
            return
        with self._lock:
            key = _key(fields, "session")
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = KnownSession(home)
            if known.home != home:
                return  # of a life that has ended meanwhile
            known.is_stateful = notes.get("stateful") is True
            generation, state = notes.get("generation"), notes.get("state")
            known.generation = generation if isinstance(generation, int) else known.generation
            if isinstance(state, Mapping):
                for name in state.get("deleted") or ():
                    known.state.pop(name, None)
                known.state.update(state.get("wrote") or {})
            self._tidy(key)

    def closed(self, fields: Fields) -> None:
        """Forget a session."""
        with self._lock:
            self._known.pop(_key(fields, "id"), None)

    def _tidy(self, key: tuple[str, str, bool]) -> None:
        self._known.move_to_end(key)
        if len(self._known) > KNOWN_MOST:
            self._known.popitem(last=False)


def _key(fields: Fields, id: str) -> tuple[str, str, bool]:
    return str(fields["pool"]), str(fields[id]), fields.get("shared") is True
