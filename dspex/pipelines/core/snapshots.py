"""The view that a step has of the state: a read-only mapping; its lists, dicts and sets are copies (P1).

Copies are made when a value is read, once per snapshot; other objects (models, arrays, clients) are shared, since only
their owner knows how to copy them. One step's thread uses one snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Snapshot(Mapping[str, Any]):
    """The state as a step found it."""

    __slots__ = ("_copies", "_state")

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        self._copies: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._copies:
            self._copies[name] = own_copy(self._state[name])
        return self._copies[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __repr__(self) -> str:
        return f"<state with {', '.join(self._state) or 'nothing'}>"


def own_copy(value: Any) -> Any:
    """Return a deep copy of lists, dicts, sets and tuples; everything else as it is."""
    kind = type(value)
    if kind is list:
        return [own_copy(item) for item in value]
    if kind is dict:
        return {key: own_copy(item) for key, item in value.items()}
    if kind is tuple:
        return tuple(own_copy(item) for item in value)
    return set(value) if kind is set else value
