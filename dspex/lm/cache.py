"""Cache LM responses: in memory and, if asked for, in a file too (RULES I6, X5).

A key is a digest of everything that decides the answer (`key_of`); a value is a whole response. Expiry is by time
(24 h) and by use (10,000 entries, 256 MiB; 1 GiB on disk). Readers take no lock, so a reader in a finalizer or after a
fork cannot find one held. Any thread. Not covered: single flight (see `single_flight`), which knows about waiting.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import SettingsError

if TYPE_CHECKING:
    from .disk_cache import DiskCache

TTL_S = 24 * 3600.0
MOST_ENTRIES = 10_000
MOST_BYTES = 256 * 1024 * 1024
MOST_DISK_BYTES = 1024 * 1024 * 1024


class CachedReply(NamedTuple):
    """A response worth keeping (its status was 200); of its headers only the content type outlives the moment."""

    content_type: str
    body: bytes


def key_of(
    url: str,
    body: bytes,
    *,
    rollout_id: int | None,
    candidate: int = 0,
    secret: str | None = None,
    headers: str | None = None,
) -> bytes:
    """Return the cache key of a request.

    `secret` (the API key) keeps the entries of `private` LMs apart, `headers` (a digest) those of tenants and the like.
    """
    digest = hashlib.sha256(url.encode())
    digest.update(b"\0")
    digest.update(body)
    if rollout_id is not None or candidate or secret is not None or headers is not None:
        tail = "" if secret is None else hashlib.sha256(secret.encode()).hexdigest()
        digest.update(f"\0{rollout_id}\0{candidate}\0{tail}".encode())
        if headers is not None:
            digest.update(f"\0{headers}".encode())
    return digest.digest()


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds and how often it was asked; `disk` says whether its file is "in use", and why not."""

    entries: int
    bytes: int
    hits: int
    misses: int
    path: str | None = None
    disk: str = "none"
    disk_entries: int = 0
    disk_bytes: int = 0


class Cache:
    """Keep answers of language models: in memory, and in a file if `path` is given.

    Give it to `dspex.configure(cache=...)` or `Supervisor(cache=...)`, or describe it by a [cache] table in the
    settings: the process then has one cache for both routes. Several processes of one user may share a file.

    Args:
        path: A file for the disk layer; None for memory only. A disk that fails is given up, never an error.
        most_entries, most_bytes: Bounds of the memory layer; the least recently used go first.
        most_disk_bytes: Bound of the file (a log of a few MiB beside it comes on top); what expires first goes first.
        ttl: Seconds that an entry lives, unless the LM's `cache_ttl` says otherwise.

    Raises:
        SettingsError: a bound that cannot be, or a file (or its folder) that is another user's, a link, or open to
            others' writing.
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] | None = None,
        most_entries: int = MOST_ENTRIES,
        most_bytes: int = MOST_BYTES,
        most_disk_bytes: int = MOST_DISK_BYTES,
        ttl: float = TTL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        bounds = {"most_entries": most_entries, "most_bytes": most_bytes, "most_disk_bytes": most_disk_bytes}
        for name, value in bounds.items():
            if type(value) is not int or value < 0:
                raise SettingsError(f"{name} must be an integer of 0 or more, not {value!r}.", key=name)
        if type(ttl) not in (int, float) or not ttl > 0:
            raise SettingsError(f"ttl must be a number of seconds over 0, not {ttl!r}.", key="ttl")
        if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
            raise SettingsError(f"path must be the path of a file, not {path!r}.", key="path")
        self.ttl = ttl
        self.hits = 0
        self.misses = 0
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, CachedReply]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        file = None if path is None else Path(path).expanduser().absolute()
        self.settings = (file, ttl, *bounds.values())
        self._disk: DiskCache | None = None
        if file is not None:
            from .disk_cache import DiskCache  # SQLite is loaded only where it is used

            self._disk = DiskCache(file, most_bytes=most_disk_bytes, clock=clock)

    @property
    def path(self) -> Path | None:
        """The file of the disk layer."""
        return None if self._disk is None else self._disk.path

    def stats(self) -> CacheStats:
        """Return what it holds, and its hits and misses in this process."""
        memory = (len(self._entries), self._bytes, self.hits, self.misses)
        if self._disk is None:
            return CacheStats(*memory)
        disk = self._disk.stats()
        return CacheStats(*memory, str(self._disk.path), disk.state, disk.entries, disk.bytes)

    def get(self, key: bytes) -> CachedReply | None:
        """Return the response kept under the key, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return self._from_disk(key)
        if entry[0] <= self._clock():
            self.drop(key)
            self.misses += 1
            return None
        with contextlib.suppress(KeyError):  # evicted by another thread since the look-up
            self._entries.move_to_end(key)
        self.hits += 1
        return entry[1]

    def put(self, key: bytes, reply: CachedReply, *, ttl: float | None = None) -> None:
        """Keep a response for `ttl` seconds (default: the cache's)."""
        expires = self._clock() + (self.ttl if ttl is None else ttl)
        self._keep(key, reply, expires)
        if self._disk is not None:
            self._disk.put(key, expires, reply.content_type, reply.body)

    def drop(self, key: bytes) -> None:
        """Drop one key in memory."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._bytes -= _size(entry[1])

    def delete(self, key: bytes) -> None:
        """Delete one key, in the disk layer too."""
        self.drop(key)
        if self._disk is not None:
            self._disk.drop(key)

    def clear(self) -> None:
        """Delete everything, the file's entries too."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
        if self._disk is not None:
            self._disk.clear()

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        if self._disk is not None:
            self._disk.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def renew_locks(self) -> None:
        """In a forked child: another thread of the parent may have held the lock; entries stay."""
        self._lock = threading.Lock()
        if self._disk is not None:
            self._disk.after_fork()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        where = "in memory" if self._disk is None else f"in memory and {self._disk.path}"
        return f"<Cache {where}: {len(self._entries)} entries, {self._bytes} bytes>"

    def _from_disk(self, key: bytes) -> CachedReply | None:
        found = self._disk.get(key) if self._disk is not None else None
        if found is None:
            self.misses += 1
            return None
        expires, content_type, body = found
        reply = CachedReply(content_type, body)
        self._keep(key, reply, expires)
        self.hits += 1
        return reply

    def _keep(self, key: bytes, reply: CachedReply, expires: float) -> None:
        size = _size(reply)
        if size > self._most_bytes:
            return
        with self._lock:
            old = self._entries.pop(key, None)
            self._bytes += size - (_size(old[1]) if old is not None else 0)
            self._entries[key] = (expires, reply)
            while len(self._entries) > self._most_entries or self._bytes > self._most_bytes:
                _, (_, gone) = self._entries.popitem(last=False)
                self._bytes -= _size(gone)


def _size(reply: CachedReply) -> int:
    return len(reply.body) + 512
