"""`cache_step(ttl=...)`: keep what the steps before it wrote, and serve it to later runs with the same inputs.

Kept in the memory of this process, per place in a pipeline; the step itself is as immutable as any other. Two runs at
the same time with the same inputs both do the work. Values are copied in and out, as for `Snapshot`.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import SettingsError
from .dataflow import Flow, Reads
from .snapshots import own_copy
from .step import Step, StepJob, StepOutput


def cache_step(*, ttl: float = 3600.0, max_entries: int = 1000, name: str | None = None) -> Step:
    """Return a step that keeps what the steps before it (in the same pipeline) wrote, for `ttl` seconds.

    A later run whose inputs are the same, as far as those steps read them, and whose LM is the same, gets these values
    and goes on behind this step: they do not run. Not kept are runs in which a fallback stood in, and inputs other than
    plain data (None, bool, int, float, str, bytes, lists, dicts, ...). At `max_entries` the least recently used goes.

    Raises:
        SettingsError: `ttl` or `max_entries` is not positive.
    """
    if not isinstance(ttl, int | float) or isinstance(ttl, bool) or not ttl > 0:
        raise SettingsError(f"ttl is {ttl!r}; it is a span in seconds, more than 0.", key="ttl")
    if not isinstance(max_entries, int) or isinstance(max_entries, bool) or max_entries < 1:
        raise SettingsError(f"max_entries is {max_entries!r}; it is a number, 1 or more.", key="max_entries")
    return CacheStep(name=name, ttl=float(ttl), max_entries=max_entries)


@dataclass(frozen=True, kw_only=True)
class CacheStep(Step):
    """Marks the place up to which a pipeline's outputs are cached; `runner.run_sequence` does the work."""

    kind: ClassVar[str] = "cache"

    ttl: float = 3600.0
    max_entries: int = 1000

    @property
    def default_name(self) -> str:
        return "cache"

    def _own_flow(self) -> Flow:
        return Flow()

    async def perform(self, job: StepJob) -> StepOutput:
        return StepOutput(None, {})


class StepStore:
    """The cached outputs of one cache step at its place. Any thread."""

    def __init__(self, ttl: float, max_entries: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._most = max_entries
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> dict[str, Any] | None:
        """Return a copy of what is kept under the key."""
        with self._lock:
            until, writes = self._entries.get(key, (-math.inf, {}))
            if until <= self._clock():
                self._entries.pop(key, None)
                return None
            self._entries.move_to_end(key)
        return {name: own_copy(value) for name, value in writes.items()}

    def put(self, key: bytes, writes: Mapping[str, Any]) -> None:
        copied = {name: own_copy(value) for name, value in writes.items()}
        with self._lock:
            self._entries[key] = (self._clock() + self._ttl, copied)
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)


def key_of(state: Mapping[str, Any], reads: Reads, lm: str) -> bytes | None:
    """Return the digest of what steps with these reads can see; None if a value is not plain data."""
    names = state.keys() if reads.is_everything else (reads.required | reads.optional) & state.keys()
    digest = hashlib.sha256(lm.encode())
    try:
        _feed(digest, {name: state[name] for name in names})
    except _Opaque:
        return None
    return digest.digest()


class _Opaque(Exception):
    """A value that has no digest."""


def _feed(digest: Any, value: Any) -> None:
    """Add a value to the digest, with its type and length, so that no two values look alike."""
    kind = type(value)
    if value is None or kind in (bool, int, float):
        _token(digest, kind.__name__, repr(value).encode())
    elif kind is str:
        _token(digest, "str", value.encode("utf-8", "surrogatepass"))
    elif kind is bytes:
        _token(digest, "bytes", value)
    elif kind in (list, tuple):
        _token(digest, kind.__name__, str(len(value)).encode())
        for item in value:
            _feed(digest, item)
    elif kind is dict and all(type(key) is str for key in value):
        _token(digest, "dict", str(len(value)).encode())
        for key in sorted(value):
            _feed(digest, key)
            _feed(digest, value[key])
    else:
        raise _Opaque


def _token(digest: Any, kind: str, content: bytes) -> None:
    digest.update(f"{kind} {len(content)} ".encode())
    digest.update(content)
