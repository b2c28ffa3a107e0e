"""`BM25Index`: documents found by their words, with SQLite's full-text index. In memory; any thread."""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import weakref
from collections.abc import Generator, Iterable
from contextlib import contextmanager

from ..errors import SettingsError, UsageError
from .documents import Document, Passage, check_search, passage, rows_of

_WORD = re.compile(r"\w+", re.UNICODE)
_TERMS_MOST = 64
_PASSAGES_MOST = 2**31  # what SQLite counts with ends at 2**63


class BM25Index:
    """An index of documents by their words, in memory: BM25 over SQLite's full-text index.

        index = dspex.BM25Index([{"id": "fr", "title": "France", "text": "Paris is its capital.", "year": 1}])
        index.search("capitals", k=3)
        # [{"id": "fr", "title": "France", "text": "Paris is its capital.", "score": ..., "rank": 1,
        #   "metadata": {"year": 1}}]

    A document is a str, or a mapping with a str "text" and optionally "id", "title" and anything else that JSON holds,
    which comes back as `metadata`. A document without an id gets one, such as "#1". May be searched from any thread
    while documents are added. Leaving a `with` block closes it; otherwise its memory goes with the object.

    Args:
        documents: What to index first.
        tokenize: FTS5's tokenizer: "porter unicode61" (English stems), "unicode61", "trigram" (parts of words).
        title_weight: How much more a word in the title counts than one in the text; 0 or more.

    Raises:
        SettingsError: a tokenizer that SQLite does not have, or a weight out of range.
        InvalidInput: as `add`.
    """

    def __init__(
        self,
        documents: Iterable[Document] = (),
        *,
        tokenize: str = "porter unicode61",
        title_weight: float = 2.0,
    ) -> None:
        self._weights = (_weight(title_weight), 1.0)
        self._lock = threading.Lock()
        self._is_closed = False
        self._database = _full_text(tokenize)
        weakref.finalize(self, self._database.close)  # Python 3.13 warns of connections that are merely dropped
        self.add(documents)

    def add(self, documents: Iterable[Document]) -> int:
        """Index more documents, replacing those with a known id; return how many were added.

        Raises:
            InvalidInput: one of them is no document; none is added.
            UsageError: the index is closed.
        """
        rows = rows_of(documents)
        with self._open() as database:
            for id, title, text, metadata in rows:
                self._remove(id)
                cursor = database.execute("INSERT INTO words (title, text) VALUES (?, ?)", (title, text))
                number = cursor.lastrowid
                name = id if id is not None else f"#{number}"  # never equal to a later id of the user
                database.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (number, name, metadata))
        return len(rows)

    def remove(self, id: str) -> bool:
        """Remove a document; return whether it was there."""
        with self._open():
            return self._remove(id)

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """Return the `k` best passages for any of the query's words, best first; fewer if no more have one.

        The query is plain text, never FTS5 syntax; its first 64 different words count. `rank` is 1 for the best;
        `score` is more than 0, has no upper end, and compares passages of one search only.

        Raises:
            InvalidInput: the query is no text, or `k` no whole number.
            UsageError: the index is closed.
        """
        check_search(query, k)
        terms = list(dict.fromkeys(_WORD.findall(query)))[:_TERMS_MOST]
        if not terms or k < 1:
            return []
        match = " OR ".join(f'"{term}"' for term in terms)
        with self._open() as database:
            rows = database.execute(
                "SELECT d.id, w.title, w.text, d.metadata, -bm25(words, ?, ?) AS score FROM words AS w "
                "JOIN documents AS d ON d.number = w.rowid WHERE words MATCH ? ORDER BY score DESC, d.number LIMIT ?",
                (*self._weights, match, min(k, _PASSAGES_MOST)),
            ).fetchall()
        return [passage(rank, *row) for rank, row in enumerate(rows, start=1)]

    def close(self) -> None:
        """Free the index; it cannot be used any more. May be called twice."""
        with self._lock:
            self._database.close()
            self._is_closed = True

    def __len__(self) -> int:
        with self._open() as database:
            (count,) = database.execute("SELECT count(*) FROM documents").fetchone()
        return int(count)

    def __enter__(self) -> BM25Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """Yield the database, in a transaction and for this thread alone."""
        with self._lock:
            if self._is_closed:
                raise UsageError("This BM25Index is closed: make a new one of its documents.")
            with self._database:
                yield self._database

    def _remove(self, id: str | None) -> bool:
        row = None
        if id is not None:
            row = self._database.execute("SELECT number FROM documents WHERE id = ?", (id,)).fetchone()
        if row is None:
            return False
        self._database.execute("DELETE FROM words WHERE rowid = ?", row)
        self._database.execute("DELETE FROM documents WHERE number = ?", row)
        return True


def _full_text(tokenize: str) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    quoted = str(tokenize).replace("'", "''")
    try:
        database.execute(f"CREATE VIRTUAL TABLE words USING fts5(title, text, tokenize='{quoted}')")
        database.execute("CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT UNIQUE, metadata TEXT)")
    except (sqlite3.Error, UnicodeEncodeError) as error:
        database.close()
        raise SettingsError(
            f"SQLite makes no full-text index with tokenize={tokenize!r}: {error}. It has 'porter unicode61', "
            f"'unicode61', 'ascii' and 'trigram'.",
            key="tokenize",
        ) from error
    return database


def _weight(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SettingsError(f"title_weight is {value!r}; it is a number, 0 or more.", key="title_weight")
    return float(value)
