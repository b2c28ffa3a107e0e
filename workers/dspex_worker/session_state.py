"""Keep session state in a worker: one mapping for each session, which commands reach as `ctx.session`.

The leader restores and drops mappings; the command that runs in a session writes it alone (the pool starts no other
command of that session meanwhile). A durable session's mapping holds wire values only, and each reply carries what its
call wrote, so that the supervisor always has the state as of the last answered call. What could not be sent is taken
back here too.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any
from weakref import WeakValueDictionary

from .failure import Failure
from .wire import decode, encode

STATE_LIMIT = 1024 * 1024  # bytes of one durable session's values


class State(dict[str, Any]):
    """One session's mapping; `is_dropped` once the supervisor has sent DROP for it."""

    is_dropped = False


class SessionView(MutableMapping[str, Any]):
    """A command's `ctx.session`: the session's mapping, with the rights that the command declared."""

    def __init__(self, state: State, *, id: str, is_writable: bool) -> None:
        self.id = id
        self._state = state
        self._is_writable = is_writable
        self._touched: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        value = self._state[key]
        self._touched.add(key)  # what is read may be changed in place
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._require_writable()
        if type(key) is not str:
            raise TypeError(f"session keys are str, not {type(key).__name__}")
        self._touched.add(key)
        self._state[key] = value

    def __delitem__(self, key: str) -> None:
        self._require_writable()
        del self._state[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __repr__(self) -> str:
        return f"<session {self.id!r} with {len(self)} keys>"

    def touched(self) -> dict[str, Any]:
        """Return what may have been changed, with its value."""
        return {key: self._state[key] for key in sorted(self._touched) if key in self._state}

    def _require_writable(self) -> None:
        if not self._is_writable:
            raise PermissionError('this command may only read its session: declare it with session="write"')


class Sessions:
    """All sessions of this worker, by id."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._seen: WeakValueDictionary[str, State] = WeakValueDictionary()  # also those that hold nothing yet
        self._packed: dict[str, dict[str, bytes]] = {}  # of durable sessions: what the supervisor has

    def view(self, id: str, *, is_writable: bool) -> SessionView:
        """Return the session's view; the session is held from the first write that survives its call."""
        state = self._states.get(id)
        if state is None:
            state = self._seen.setdefault(id, State())
        else:
            self._seen[id] = state  # a call and those nested in it see the same, also once one has emptied it
        return SessionView(state, id=id, is_writable=is_writable)

    def commit(self, view: SessionView, *, is_durable: bool) -> dict[str, Any]:
        """Return the reply's notes after a call that could write: whether state is held and, if durable, what changed.

        Raises:
            Unencodable, OverLimit, Failure: a durable session holds something that the supervisor cannot keep, or
                too much (SessionStateTooLarge); it is again as the supervisor has it.
        """
        if view._state.is_dropped:
            return {"held": False}
        notes: dict[str, Any] = {}
        try:
            if is_durable:
                notes["wrote"], notes["deleted"] = self._changed(view)
        except Exception:  # taken back, and raised again
            view._state.clear()
            view._state.update((key, decode(value)) for key, value in self._packed.get(view.id, {}).items())
            raise
        finally:
            self._hold(view)
        return {"held": len(view) > 0, **notes}

    def restore(self, id: str, values: dict[str, Any]) -> None:
        """Set the state that the supervisor kept."""
        self._states[id] = State(values)
        self._packed[id] = {key: encode(value) for key, value in values.items()}

    def drop(self, id: str) -> None:
        """Drop the state; calls that still run keep what they see, and report nothing of it."""
        for states in (self._states, self._seen):
            state = states.pop(id, None)
            if state is not None:
                state.is_dropped = True
        self._packed.pop(id, None)

    def __len__(self) -> int:
        return len(self._states)

    def _hold(self, view: SessionView) -> None:
        if len(view):
            self._states[view.id] = view._state
        else:
            self._states.pop(view.id, None)
            self._packed.pop(view.id, None)

    def _changed(self, view: SessionView) -> tuple[dict[str, Any], list[str]]:
        """Return what the supervisor lacks, and what it has that is gone; from now on it counts as sent."""
        before = self._packed.get(view.id, {})
        touched = view.touched()
        packed = {key: encode(value, root=f"session[{key!r}]") for key, value in touched.items()}
        for key in packed:
            encode(key, root=f"session key {key!r}")
        after = {key: value for key, value in {**before, **packed}.items() if key in view._state}
        size = sum(len(key) + len(value) for key, value in after.items())
        if size > STATE_LIMIT:
            message = f"session {view.id!r} holds {size:,} bytes, the limit is {STATE_LIMIT:,}"
            raise Failure("SessionStateTooLarge", message)
        self._packed[view.id] = after
        wrote = {key: touched[key] for key, value in packed.items() if before.get(key) != value}
        return wrote, sorted(before.keys() - after.keys())
