"""Session state inside a worker: one mapping for each session, which commands reach through `ctx.session`.

The leader creates, restores and forgets mappings; the command that runs in a session writes it alone (the pool
starts no other command of that session meanwhile). A durable session's mapping holds wire values only, and each reply
carries what its call wrote, so that the supervisor always has the state as of the last answered call.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from .wire import encode

STATE_LIMIT = 1024 * 1024  # bytes of one durable session's values


class SessionStateTooLarge(ValueError):
    """A durable session grew over `STATE_LIMIT`."""


class SessionView(MutableMapping[str, Any]):
    """What `ctx.session` is: the session's mapping, with the rights that the command declared."""

    def __init__(self, values: dict[str, Any], *, id: str, is_writable: bool) -> None:
        self.id = id
        self._values = values
        self._is_writable = is_writable
        self._touched: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._touched.add(key)  # what is read may be changed in place
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._require_writable()
        if type(key) is not str:
            raise TypeError(f"session keys are str, not {type(key).__name__}")
        self._touched.add(key)
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        self._require_writable()
        self._touched.add(key)
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<session {self.id!r} with {len(self)} keys>"

    def changes(self) -> tuple[dict[str, Any], list[str]]:
        """Give (what was touched and is there, what was touched and is gone)."""
        wrote = {key: self._values[key] for key in sorted(self._touched) if key in self._values}
        return wrote, sorted(self._touched - self._values.keys())

    def _require_writable(self) -> None:
        if not self._is_writable:
            raise PermissionError('this command may only read its session: declare it with session="write"')


class Sessions:
    """All sessions of this worker, by id."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}
        self._packed: dict[str, dict[str, bytes]] = {}  # of durable sessions: what the supervisor has

    def view(self, id: str, *, is_writable: bool) -> SessionView:
        """Give the session's view; the mapping appears at the first write that survives its call."""
        return SessionView(self._values.setdefault(id, {}), id=id, is_writable=is_writable)

    def settle(self, view: SessionView, *, is_durable: bool) -> dict[str, Any]:
        """Give the reply's notes after a call that could write: whether state is held and, if durable, what changed.

        Raises:
            Unencodable, SessionStateTooLarge: a durable session holds something that the supervisor cannot keep.
        """
        notes: dict[str, Any] = {"held": len(view) > 0}
        if is_durable:
            wrote, deleted = view.changes()
            notes["wrote"], notes["deleted"] = self._changed(view.id, wrote), deleted
        if not len(view):
            self.forget(view.id)
        return notes

    def restore(self, id: str, values: dict[str, Any]) -> None:
        """Take the state that the supervisor kept."""
        self._values[id] = values
        self._packed[id] = {key: encode(value) for key, value in values.items()}

    def forget(self, id: str) -> None:
        self._values.pop(id, None)
        self._packed.pop(id, None)

    def __len__(self) -> int:
        return len(self._values)

    def _changed(self, id: str, wrote: dict[str, Any]) -> dict[str, Any]:
        packed = self._packed.setdefault(id, {})
        changed: dict[str, Any] = {}
        for key, value in wrote.items():
            new = encode(value, root=f"session[{key!r}]")
            if packed.get(key) != new:
                packed[key], changed[key] = new, value
        for key in packed.keys() - self._values[id].keys():
            del packed[key]
        size = sum(len(key) + len(value) for key, value in packed.items())
        if size > STATE_LIMIT:
            raise SessionStateTooLarge(f"session {id!r} holds {size:,} bytes, the limit is {STATE_LIMIT:,}")
        return changed
