"""`DiskCache`: responses in a SQLite file (WAL), shared by any number of processes of one user.

Plain columns and a digest per entry, no pickles: what was damaged, or written by another program, is no answer. A file
that fails is given up with one event, and never raises into a call. Its size is bounded: what expires first goes first.
One connection, used under one lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import SettingsError
from ..events import Event, Name, write_log
from .file_ownership import SIBLINGS, open_own, require_own

BUSY_MS = 250  # a reply that another process keeps us from writing down for longer is not written down
_WAL_BYTES = 4 * 1024 * 1024  # what the log beside the file is cut down to
_PART_MOST = 4  # an entry takes at most this part of the bound
_EVICTED_PART = 10  # of the bound: what is freed at once
_TABLE = """CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, expires REAL NOT NULL, content_type TEXT NOT NULL,
    body BLOB NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID"""
_INDEX = "CREATE INDEX IF NOT EXISTS answers_by_expiry ON answers (expires)"


class DiskStats(NamedTuple):
    """How full the file is; `state` is "in use", "read-only", or why it is not used."""

    entries: int
    bytes: int
    state: str


class DiskCache:
    """Answers by key in a file of at most about `most_bytes`.

    Raises:
        SettingsError: the file, or its folder, is another user's, a link, or open to others' writing.
    """

    def __init__(self, path: Path, *, most_bytes: int, clock: Callable[[], float]) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._given_up = ""  # why
        self._writable = True
        self._was_reported = False
        self._puts = 0
        require_own(path)

    def get(self, key: bytes) -> tuple[float, str, bytes] | None:
        """Return (when it expires, content type, body), None for an entry that is missing, too old or damaged."""
        with self._lock:
            try:
                database = self._open()
                row = (
                    database
                    and database.execute(
                        "SELECT expires, content_type, body, digest FROM answers WHERE key = ? AND expires > ?",
                        (key, self._clock()),
                    ).fetchone()
                )
            except sqlite3.Error as error:
                self._failed(error)
                return None
            if not row:
                return None
            if [type(value) for value in row] == [float, str, bytes, bytes]:
                expires, content_type, body, digest = row
                if digest == _digest(key, expires, content_type, body):
                    return expires, content_type, body
            self._report("an entry is not as it was written")
        return None

    def put(self, key: bytes, expires: float, content_type: str, body: bytes) -> None:
        """Write an entry down, if the file can be written and it is not too large for it."""
        if len(body) > self._most_bytes // _PART_MOST:
            return
        with self._lock:
            try:
                database = self._open()
                if database is None or not self._writable:
                    return
                self._puts += 1
                if self._puts % 1000 == 1:
                    database.execute("DELETE FROM answers WHERE expires <= ?", (self._clock(),))
                values = (key, expires, content_type, body, _digest(key, expires, content_type, body))
                try:
                    database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", values)
                except sqlite3.OperationalError as error:
                    if not self._is_at_bound(database, error):
                        raise
                    self._evict(database, len(body))
                    database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", values)
            except sqlite3.OperationalError as error:
                self._writable = _is_busy(error)  # else a read-only or full disk: what is there can still be read
            except sqlite3.Error as error:
                self._give_up(str(error))

    def drop(self, key: bytes) -> None:
        """Delete one entry."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            database = self._open()
            if database is not None:
                database.execute("DELETE FROM answers WHERE key = ?", (key,))

    def clear(self) -> None:
        """Delete every entry, and give the space back; a file that cannot be read is removed."""
        with self._lock:
            try:
                database = self._open()
                if database is not None:
                    database.execute("DELETE FROM answers")
                    with contextlib.suppress(sqlite3.Error):  # others are reading: the space is used again
                        database.execute("VACUUM")
                        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    return
            except sqlite3.Error as error:
                self._failed(error)
            if self._given_up:
                self._remove()

    def stats(self) -> DiskStats:
        """Return how full the file is."""
        with self._lock:
            entries = 0
            try:
                database = self._open()
                if database is not None:
                    entries = database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
            except sqlite3.Error as error:
                self._failed(error)
            state = self._given_up or ("in use" if self._writable else "read-only")
            return DiskStats(entries, sum(_sizes(self.path)), state)

    def close(self) -> None:
        """Close the file; it is opened again at the next need."""
        with self._lock:
            self._close()

    def after_fork(self) -> None:
        """After a fork: SQLite connections must not be carried over, nor closed by the child."""
        self._lock = threading.Lock()
        self._left_to_parent = self._database
        self._database = None

    def _open(self) -> sqlite3.Connection | None:
        if self._database is None and not self._given_up:
            try:
                self._database = self._create()
            except SettingsError as error:  # it was put there since; a call in the middle of its work goes on without
                write_log(Event(Name.CACHE_REFUSED, {"path": str(self.path), "reason": str(error)}))
                self._given_up = str(error)
                self._close()
            except sqlite3.Error as error:
                if _is_busy(error):  # another process is at it; the next call tries again
                    return None
                try:
                    self._database = self._read_only()
                except sqlite3.Error:
                    self._give_up(str(error))
        return self._database

    def _create(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):  # SQLite says what it makes of that
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_own(self.path)
            open_own(self.path)
        database = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
            database.execute(_TABLE)
            database.execute(_INDEX)
            pages = max(self._most_bytes // database.execute("PRAGMA page_size").fetchone()[0], 16)
            database.execute(f"PRAGMA max_page_count={pages}")
            database.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _read_only(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
        database = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("SELECT COUNT(*) FROM answers").fetchone()
        except sqlite3.Error:
            database.close()
            raise
        self._writable = False
        return database

    def _is_at_bound(self, database: sqlite3.Connection, error: sqlite3.OperationalError) -> bool:
        """Return whether the file is as large as it may be, rather than the disk full."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
            return False
        names = ("page_size", "page_count", "freelist_count")
        size, pages, free = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return bool((pages - free) * size > self._most_bytes // 2)

    def _evict(self, database: sqlite3.Connection, needed: int) -> None:
        """Delete what expires first, until there is room."""
        freed, wanted = 0, max(self._most_bytes // _EVICTED_PART, 2 * needed)
        while freed < wanted:
            rows = database.execute("SELECT key, LENGTH(body) FROM answers ORDER BY expires LIMIT 100").fetchall()
            if not rows:
                return
            database.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key, _ in rows])
            freed += sum(size for _, size in rows)

    def _failed(self, error: sqlite3.Error) -> None:
        if not _is_busy(error):
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        self._given_up = f"given up: {reason}"
        self._report(reason)
        self._close()

    def _report(self, reason: str) -> None:
        if not self._was_reported:
            self._was_reported = True
            write_log(Event(Name.CACHE_DAMAGED, {"path": str(self.path), "reason": reason}))

    def _remove(self) -> None:
        with contextlib.suppress(SettingsError, OSError):
            require_own(self.path)
            for file in _files(self.path):
                file.unlink(missing_ok=True)
            self._given_up, self._writable, self._was_reported = "", True, False

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _files(path: Path) -> Iterator[Path]:
    yield path
    for ending in SIBLINGS:
        yield path.with_name(path.name + ending)


def _sizes(path: Path) -> Iterator[int]:
    for file in _files(path):
        with contextlib.suppress(OSError):
            yield os.lstat(file).st_size


def _digest(key: bytes, expires: float, content_type: str, body: bytes) -> bytes:
    digest = hashlib.blake2b(key, digest_size=16)
    digest.update(f"\0{expires!r}\0{content_type}\0".encode("utf-8", "surrogatepass"))
    digest.update(body)
    return digest.digest()


def _is_busy(error: sqlite3.Error) -> bool:
    """Return whether another process holds the file, which passes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
