"""Cache LM responses: in memory and, if asked for, on disk in SQLite (RULES I6, X5).

A key is a digest of everything that decides the answer (`key_of`); a value is a whole response. Expiry is by time
(24 h) and by use (10,000 entries, 256 MiB). Readers take no lock, so a reader in a finalizer or after a fork cannot
find one held. Any thread. Not covered: single flight (see `single_flight`), which knows about waiting.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import SettingsError
from ..events import Event, Name, write_log
from .file_ownership import open_own, require_own

TTL_S = 24 * 3600.0
MOST_ENTRIES = 10_000
MOST_BYTES = 256 * 1024 * 1024
_BUSY_MS = 250  # a reply that another process keeps us from writing down for longer is not written down


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


class Cache:
    """Get and put responses by key.

    Args:
        most_entries, most_bytes: Bounds of the memory layer; the least recently used go first.
        ttl: Seconds that an entry lives, unless `put` says otherwise.
        path: A file for the disk layer; None for memory only. A disk that fails is given up, never an error.

    Raises:
        SettingsError: the file, or its folder, is another user's, a link, or open to others' writing.
    """

    def __init__(
        self,
        *,
        most_entries: int = MOST_ENTRIES,
        most_bytes: int = MOST_BYTES,
        ttl: float = TTL_S,
        path: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl = ttl
        self.hits = 0
        self.misses = 0
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, CachedReply]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._disk = None if path is None else _Disk(Path(path), clock)

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
            self._disk.put(key, reply, expires)

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
        """Delete everything, the disk layer too."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
        if self._disk is not None:
            self._disk.clear()

    def close(self) -> None:
        """Close the disk layer."""
        if self._disk is not None:
            self._disk.close()

    def renew_locks(self) -> None:
        """In a forked child: another thread of the parent may have held the lock; entries stay."""
        self._lock = threading.Lock()
        if self._disk is not None:
            self._disk.after_fork()

    def __len__(self) -> int:
        return len(self._entries)

    def _from_disk(self, key: bytes) -> CachedReply | None:
        found = self._disk.get(key) if self._disk is not None else None
        if found is None:
            self.misses += 1
            return None
        expires, reply = found
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


class _Disk:
    """Responses in a SQLite file: plain columns, no pickles. One connection, used under one lock."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._broken = False
        self._writable = True
        self._puts = 0
        require_own(path)

    def get(self, key: bytes) -> tuple[float, CachedReply] | None:
        with self._lock:
            try:
                database = self._open()
                row = (
                    database
                    and database.execute(
                        "SELECT expires, content_type, body FROM replies WHERE key = ? AND expires > ?",
                        (key, self._clock()),
                    ).fetchone()
                )
            except sqlite3.Error as error:
                self._failed(error)
                return None
        if not row or [type(value) for value in row] != [float, str, bytes]:  # none, or of another program's table
            return None
        expires, content_type, body = row
        return expires, CachedReply(content_type, body)

    def put(self, key: bytes, reply: CachedReply, expires: float) -> None:
        with self._lock:
            try:
                database = self._open()
                if database is None or not self._writable:
                    return
                values = (key, expires, reply.content_type, reply.body)
                database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", values)
                self._puts += 1
                if self._puts % 1000 == 1:
                    database.execute("DELETE FROM replies WHERE expires <= ?", (self._clock(),))
            except sqlite3.OperationalError as error:
                self._writable = _is_busy(error)  # else a read-only or full disk: what is there can still be read
            except sqlite3.Error:
                self._give_up()

    def drop(self, key: bytes) -> None:
        with self._lock, contextlib.suppress(sqlite3.Error):
            database = self._open()
            if database is not None:
                database.execute("DELETE FROM replies WHERE key = ?", (key,))

    def clear(self) -> None:
        with self._lock, contextlib.suppress(sqlite3.Error):
            database = self._open()
            if database is not None:
                database.execute("DELETE FROM replies")

    def close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def after_fork(self) -> None:
        """After a fork: SQLite connections must not be carried over, nor closed by the child."""
        self._lock = threading.Lock()
        self._left_to_parent = self._database
        self._database = None

    def _open(self) -> sqlite3.Connection | None:
        if self._database is None and not self._broken:
            try:
                self._database = self._create()
            except SettingsError as error:  # it was put there since; a call in the middle of its work goes on without
                write_log(Event(Name.CACHE_REFUSED, {"path": str(self._path), "reason": str(error)}))
                self._give_up()
            except sqlite3.Error as busy:
                if _is_busy(busy):  # another process is at it; the next call tries again
                    return None
                try:
                    self._database = self._read_only()
                except sqlite3.Error:
                    self._give_up()
        return self._database

    def _create(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):  # SQLite says what it makes of that
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_own(self._path)
            open_own(self._path)
        database = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, expires REAL NOT NULL, "
                "content_type TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID"
            )
            database.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _read_only(self) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode=ro&immutable=1"
        database = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)
        self._writable = False
        return database

    def _failed(self, error: sqlite3.Error) -> None:
        if not _is_busy(error):
            self._give_up()

    def _give_up(self) -> None:
        self._broken = True
        if self._database is not None:
            self._database.close()
            self._database = None


def _is_busy(error: sqlite3.Error) -> bool:
    """Return whether another process holds the file, which passes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _size(reply: CachedReply) -> int:
    return len(reply.body) + 512
