"""Keep what was asked of language models and what they answered, for who asked for it; bounded. Any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .redaction import ANSWER_LEAST

ENTRIES_MOST = 1000  # unless a number is given
BYTES_MOST = 64 * 1024 * 1024  # that the entries of one history take
_CONTAINER = 64  # bytes of an empty list or mapping


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One request to a language model and its answer.

    `messages` are those that DSPy's adapter made; `text` is the first answer's, `outputs` has all of them as DSPy does
    (texts, or mappings with `text`, `tool_calls`, `reasoning_content`). `route` is "native" or
    "python:<pool>/<worker>", `worker` the latter part of it. `cost_usd` is 0.0 for what was `cached`, None where the
    price is unknown. A request that failed has an `error`, and no text. No key is in it.
    """

    messages: Sequence[Mapping[str, Any]]
    text: str
    model: str
    outputs: Sequence[Any] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    predictor: str = ""
    route: str = "native"
    worker: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    cost_usd: float | None = None
    seconds: float | None = None
    cached: bool = False
    finish_reason: str = ""
    error: str = ""
    time: datetime = field(default_factory=datetime.now)


class CallHistory:
    """The last entries: at most so many, and so many bytes of text; one that is larger than all is left out."""

    def __init__(self, most: int = ENTRIES_MOST) -> None:
        self.most = most
        self._entries: deque[tuple[HistoryEntry, int, int]] = deque()  # with its size and whose it is
        self._size = 0
        self._lock = threading.Lock()

    def add(self, entry: HistoryEntry, source: int = 0) -> None:
        """Add an entry; `source` tells the programs apart that share a history."""
        size = size_of_entry(entry)
        if size > BYTES_MOST:
            return
        with self._lock:
            self._entries.append((entry, size, source))
            self._size += size
            self._shrink()

    def entries(self, source: int | None = None) -> tuple[HistoryEntry, ...]:
        """Return the entries, the oldest first; of one source, or all."""
        with self._lock:
            return tuple(entry for entry, _, whose in self._entries if source is None or whose == source)

    def keep(self, most: int) -> None:
        """Keep at most so many from now on."""
        with self._lock:
            self.most = most
            self._shrink()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
            self._size = 0

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where the thread that held it is gone."""
        self._lock = threading.Lock()

    def _shrink(self) -> None:
        while self._entries and (len(self._entries) > self.most or self._size > BYTES_MOST):
            self._size -= self._entries.popleft()[1]


def size_of_entry(entry: HistoryEntry) -> int:
    """Return the bytes that an entry takes, about; a worker may put anything into any part of it."""
    said = (entry.text, entry.model, entry.predictor, entry.finish_reason, entry.error)
    return size_of((entry.messages, entry.outputs, entry.options, entry.usage, said))


def size_of(value: Any) -> int:
    """Return the bytes that a value takes, about."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return _CONTAINER + sum(size_of(key) + size_of(item) for key, item in value.items())
    if isinstance(value, Sequence):
        return _CONTAINER + sum(map(size_of, value))
    return 8


def without(value: Any, secrets: Sequence[str]) -> Any:
    """Return a value without these secrets in its texts; the same object where there are none."""
    long_enough = [secret for secret in secrets if len(secret) >= ANSWER_LEAST]
    return _without(value, long_enough) if long_enough else value


def _without(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, Mapping):
        return {
            _without(key, secrets) if isinstance(key, str) else key: _without(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without(item, secrets) for item in value]
    return value
