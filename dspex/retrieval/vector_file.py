"""`VectorFile`: keep an index's documents and unit vectors in one SQLite file, and read it with suspicion.

A file may come from anywhere: its form, schema, types, sizes and numbers are checked before any of it is used, and it
can only hold data. Each call opens the file and closes it, so forks and threads share nothing; a change is one
transaction, refused when another process has changed the file since it was read.
"""

from __future__ import annotations

import array
import contextlib
import json
import math
import os
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidInput, UsageError
from .vectors import WIDTH_MOST

if TYPE_CHECKING:
    from ..lm.dialects.embeddings import Vector

FORMAT = 1
BYTES_MOST = 8 * 1024**3  # of a file; an index needs as much memory
DOCUMENTS_MOST = 1_000_000
VALUE_MOST = 64 * 1024 * 1024  # bytes of one text or vector
_APPLICATION = 0x44535856  # "DSXV", in a SQLite file's header
_MAGIC = b"SQLite format 3\0"
_JOURNAL = "-journal"
_BUSY_S = 5.0
_ABOUT = "CREATE TABLE about (format INTEGER, width INTEGER, embedder TEXT, changes INTEGER)"
_DOCUMENTS = (
    "CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT, title TEXT, text TEXT, metadata TEXT, vector BLOB)"
)
_SCHEMA = {("table", "about", _ABOUT), ("table", "documents", _DOCUMENTS)}
_READ = "SELECT number, id, title, text, metadata, vector FROM documents ORDER BY number"
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)  # a FIFO would be waited for
_UNIT_OFF = 1e-3  # by how much a kept vector's length may differ from 1


class KeptDocument(NamedTuple):
    """A document and its unit vector."""

    number: int
    id: str
    title: str
    text: str
    metadata: str  # JSON, or empty
    vector: Vector


@dataclass(frozen=True, slots=True)
class KeptIndex:
    """What a file holds. `embedder` is the model that made the vectors, empty for a function."""

    width: int
    embedder: str
    changes: int
    documents: Sequence[KeptDocument] = ()


class VectorFile:
    """One file of an index.

    Args:
        path: Where it is.
        most_bytes: A larger file is not read.
    """

    def __init__(self, path: str | os.PathLike[str], *, most_bytes: int = BYTES_MOST) -> None:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise InvalidInput(f"An index is kept in a file, whose path is not {path!r}.", field="path")
        self.path = Path(os.path.expanduser(os.fsdecode(path))).absolute()  # noqa: PTH111 (pathlib raises for ~nobody)
        self._most_bytes = most_bytes

    def exists(self) -> bool:
        """Return whether there is something at the path."""
        return os.path.lexists(self.path)

    def read(self) -> KeptIndex:
        """Return what the file holds, checked.

        Raises:
            InvalidInput: it is missing, no index, damaged, too large, or of a newer version.
        """
        size = self._checked_size()
        with self._opened("ro") as database:
            about = self._about(database)
            documents = list(self._documents(database, about.width, size))
        return KeptIndex(about.width, about.embedder, about.changes, documents)

    def write(self, kept: KeptIndex) -> None:
        """Write a whole index in place of whatever the file holds; the file is the user's alone (mode 0600).

        Raises:
            OSError: the folder cannot be written to.
        """
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        os.close(descriptor)
        try:
            with closing(sqlite3.connect(name, isolation_level=None)) as database:
                database.execute(f"PRAGMA application_id = {_APPLICATION}")
                database.execute("BEGIN")
                database.execute(_ABOUT)
                database.execute(_DOCUMENTS)
                about = (FORMAT, kept.width, kept.embedder, kept.changes)
                database.execute("INSERT INTO about VALUES (?, ?, ?, ?)", about)
                _insert(database, kept.documents)
                database.execute("COMMIT")
            # A journal that a killed process has left would be rolled back into the new file.
            Path(f"{self.path}{_JOURNAL}").unlink(missing_ok=True)
            Path(name).replace(self.path)
        except BaseException:  # also Ctrl-C: no half file stays
            Path(name).unlink(missing_ok=True)
            raise

    def change(self, kept: KeptIndex, added: Sequence[KeptDocument], removed: Iterable[int]) -> int:
        """Remove and add documents in one transaction; return how often the file was changed now.

        Raises:
            UsageError: it was changed since it was read.
            InvalidInput: it is an index no more, or cannot be written to.
        """
        self._checked_size()
        with self._opened("rw") as database, _transaction(database):
            about = self._about(database)
            if (about.changes, about.embedder) != (kept.changes, kept.embedder):
                raise UsageError(
                    f"The index {str(self.path)!r} was changed by someone else since it was read: load it again."
                )
            database.executemany("DELETE FROM documents WHERE number = ?", [(number,) for number in removed])
            _insert(database, added)
            database.execute("UPDATE about SET width = ?, changes = ?", (kept.width, about.changes + 1))
        return about.changes + 1

    # ============================================================================================================

    @contextmanager
    def _opened(self, mode: str) -> Generator[sqlite3.Connection]:
        try:
            uri = f"{self.path.as_uri()}?mode={mode}"
            with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)) as database:
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_MOST)
                database.execute("PRAGMA trusted_schema = OFF")
                database.execute("PRAGMA cell_size_check = ON")
                database.execute("PRAGMA mmap_size = 0")
                yield database
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise self._damaged(f"SQLite says {type(error).__name__}: {str(error)[:200]}") from error

    def _checked_size(self) -> int:
        try:
            descriptor = os.open(self.path, _READING)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", error)
            raise InvalidInput(f"The index {str(self.path)!r} cannot be read: {why}.", field="path") from None
        try:
            facts = os.fstat(descriptor)
            head = os.read(descriptor, 100) if stat.S_ISREG(facts.st_mode) else b""
        finally:
            os.close(descriptor)
        if facts.st_size > self._most_bytes:
            raise InvalidInput(
                f"The index {str(self.path)!r} has {facts.st_size:,} bytes, over the limit of {self._most_bytes:,}.",
                field="path",
            )
        if not head.startswith(_MAGIC) or int.from_bytes(head[68:72], "big") != _APPLICATION:
            raise InvalidInput(f"{str(self.path)!r} is no index that DSPex has saved.", field="path")
        return facts.st_size

    def _about(self, database: sqlite3.Connection) -> KeptIndex:
        schema = database.execute("SELECT type, name, sql FROM sqlite_master LIMIT 3").fetchall()
        if set(schema) != _SCHEMA:
            raise self._damaged("it holds other tables than an index has")
        rows = database.execute("SELECT format, width, embedder, changes FROM about LIMIT 2").fetchall()
        if len(rows) != 1 or [type(value) for value in rows[0]] != [int, int, str, int]:
            raise self._damaged("it does not say what it holds")
        form, width, embedder, changes = rows[0]
        if form != FORMAT:
            raise InvalidInput(
                f"The index {str(self.path)!r} has the format {form}; this version reads {FORMAT}.", field="path"
            )
        if not 0 <= width <= WIDTH_MOST or not 0 <= changes < 2**62:
            raise self._damaged(f"vectors of {width} numbers")
        return KeptIndex(width, embedder, changes)

    def _documents(self, database: sqlite3.Connection, width: int, most_bytes: int) -> Iterable[KeptDocument]:
        names: set[str] = set()
        total = last = 0
        for row in database.execute(_READ):
            number, name, title, text, metadata, raw = row
            if [type(value) for value in row] != [int, str, str, str, str, bytes] or not last < number < 2**62:
                raise self._damaged(f"a row that is no document after number {last}")
            # Damaged pages can say the same thing again and again.
            total += len(title) + len(text) + len(metadata) + len(raw)
            if total > most_bytes or len(names) >= DOCUMENTS_MOST:
                raise self._damaged(f"more than {most_bytes:,} bytes or {DOCUMENTS_MOST:,} documents")
            if name in names:
                raise self._damaged("two documents of one id")
            names.add(name)
            last = number
            self._require_metadata(metadata, number)
            yield KeptDocument(number, name, title, text, metadata, self._vector(raw, width, number))

    def _vector(self, raw: bytes, width: int, number: int) -> Vector:
        if len(raw) != 4 * width:
            raise self._damaged(f"a vector of {len(raw)} bytes where {4 * width} belong (number {number})")
        vector = array.array("f")
        vector.frombytes(raw)
        if sys.byteorder == "big":
            vector.byteswap()
        length = math.hypot(*vector)
        if not (length == 0 or abs(length - 1) < _UNIT_OFF):
            raise self._damaged(f"a vector that is not of length 1 (number {number})")
        return vector

    def _require_metadata(self, metadata: str, number: int) -> None:
        found: Any = {}
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(metadata) if metadata else {}
            if isinstance(found, dict):
                return
        raise self._damaged(f"metadata that is no JSON object (number {number})")

    def _damaged(self, what: str) -> InvalidInput:
        return InvalidInput(f"The index {str(self.path)!r} is damaged, or not ours: {what}.", field="path")


@contextmanager
def _transaction(database: sqlite3.Connection) -> Generator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:  # also Ctrl-C: half a change is none
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _insert(database: sqlite3.Connection, documents: Iterable[KeptDocument]) -> None:
    database.executemany(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", ((*each[:5], _raw(each.vector)) for each in documents)
    )


def _raw(vector: Vector) -> bytes:
    if sys.byteorder == "little":
        return vector.tobytes()
    swapped = array.array("f", vector)
    swapped.byteswap()
    return swapped.tobytes()
