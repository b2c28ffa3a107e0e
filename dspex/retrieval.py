"""Retrieve in the parent: BM25 over SQLite's full-text index, and cosine similarity of the user's embeddings.

Both indexes live in memory, may be searched from any thread while documents are added, and answer with passages: plain
dicts {"id", "text", "title", "score", "rank", "metadata"}, best first. Not covered: remote retrievers (a worker has
DSPy's own), persistence.
"""

from __future__ import annotations

import array
import json
import math
import re
import sqlite3
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .errors import InvalidInput, SettingsError, UsageError

Passage = dict[str, Any]
Document = str | Mapping[str, Any]
Embedder = Callable[[list[str]], Sequence[Sequence[float]]]

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
        rows = _rows_of(documents)
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
        _check_search(query, k)
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
        return [_passage(rank, *row) for rank, row in enumerate(rows, start=1)]

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


class VectorIndex:
    """Documents found by the cosine of their embeddings. Exact: every document is compared (10,000 of 384 numbers:
    about 4 ms with numpy, which is used when it is installed, 400 ms without).

    Args:
        embed: From a list of texts to as many vectors; called for all new documents at once, and for each query.
        documents: What to index first.
    """

    def __init__(self, embed: Embedder, documents: Iterable[Document] = ()) -> None:
        self._embed = embed
        self._lock = threading.Lock()
        self._state: tuple[tuple[_Row, ...], _Matrix | None] = ((), None)
        self.add(documents)

    def add(self, documents: Iterable[Document]) -> int:
        """Index more documents; return how many were added.

        Raises:
            InvalidInput: a document without text, or embeddings of another number or length.
        """
        rows = _rows_of(documents)
        if not rows:
            return 0
        vectors = self._vectors([text for _, _, text, _ in rows])
        with self._lock:  # a search reads the pair in one go and is never disturbed
            old, matrix = self._state
            matrix = _Matrix(vectors) if matrix is None else matrix.extended(vectors)
            self._state = ((*old, *rows), matrix)
        return len(rows)

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """Return the `k` passages nearest to the query.

        Raises:
            InvalidInput: the query is no text, or `k` no whole number.
        """
        _check_search(query, k)
        rows, matrix = self._state
        if matrix is None or k < 1:
            return []
        [vector] = self._vectors([query])
        found = []
        for rank, (number, score) in enumerate(matrix.nearest(vector, k), start=1):
            id, title, text, metadata = rows[number]
            found.append(_passage(rank, f"#{number + 1}" if id is None else id, title, text, metadata, score))
        return found

    def __len__(self) -> int:
        return len(self._state[0])

    def _vectors(self, texts: list[str]) -> list[Sequence[float]]:
        vectors = list(self._embed(texts))
        if len(vectors) != len(texts):
            raise InvalidInput(f"The embedder made {len(vectors)} vectors of {len(texts)} texts.")
        return vectors


_Row = tuple[str | None, str, str, str]


class _Matrix:
    """Unit vectors, one per document. Immutable."""

    def __init__(self, vectors: Sequence[Sequence[float]]) -> None:
        self._width = len(vectors[0])
        self._rows: list[array.array[float]] = [self._unit(vector) for vector in vectors]
        self._table: Any = None

    def extended(self, vectors: Sequence[Sequence[float]]) -> _Matrix:
        new = object.__new__(_Matrix)
        new._width = self._width
        new._rows = self._rows + [self._unit(vector) for vector in vectors]
        new._table = None
        return new

    def nearest(self, vector: Sequence[float], k: int) -> list[tuple[int, float]]:
        unit = self._unit(vector)
        scores = self._scores(unit)
        order = sorted(range(len(scores)), key=lambda number: (-scores[number], number))[:k]
        return [(number, scores[number]) for number in order]

    def _scores(self, unit: array.array[float]) -> list[float]:
        try:
            import numpy
        except ImportError:
            return [math.fsum(map(float.__mul__, row, unit)) for row in self._rows]
        if self._table is None:
            self._table = numpy.array(self._rows)
        scores: list[float] = (self._table @ numpy.array(unit)).tolist()
        return scores

    def _unit(self, vector: Sequence[float]) -> array.array[float]:
        numbers = array.array("d", (float(number) for number in vector))
        if len(numbers) != self._width:
            raise InvalidInput(f"The embedder made a vector of {len(numbers)} numbers, not of {self._width}.")
        length = math.hypot(*numbers)
        if not math.isfinite(length):
            raise InvalidInput("The embedder made a vector that is not finite.")
        return array.array("d", (number / length for number in numbers)) if length else numbers


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


def _check_search(query: str, k: int) -> None:
    if not isinstance(query, str):
        raise InvalidInput(f"A query is text, not a {type(query).__name__}.", field="query")
    if isinstance(k, bool) or not isinstance(k, int):
        raise InvalidInput(f"k is {k!r}; it is how many passages to give, a whole number.", field="k")


def _rows_of(documents: Iterable[Document]) -> list[_Row]:
    # A text is iterable, and so is a mapping: each would be indexed letter by letter, key by key.
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InvalidInput(
            f"Documents are a list of texts or mappings, not one {type(documents).__name__}.", field="documents"
        )
    return [_row_of(document) for document in documents]


def _row_of(document: Document) -> _Row:
    if isinstance(document, str):
        document = {"text": document}
    if not isinstance(document, Mapping):
        raise InvalidInput(
            f"A document must be a str, or a mapping with a 'text', not a {type(document).__name__}.", field="documents"
        )
    rest = dict(document)
    id, title, text = rest.pop("id", None), rest.pop("title", None) or "", rest.pop("text", None)
    if not isinstance(text, str):
        raise InvalidInput("A document must be a str, or a mapping with a 'text'.", field="text")
    try:
        metadata = json.dumps(rest) if rest else ""
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"A document's metadata must be JSON: {error}.", field="metadata") from None
    row = (None if id is None else str(id), str(title), text, metadata)
    try:
        "".join(filter(None, row)).encode()
    except UnicodeEncodeError:
        raise InvalidInput("A document's text holds half of a surrogate pair.", field="text") from None
    return row


def _passage(rank: int, id: str, title: str, text: str, metadata: str, score: float) -> Passage:
    return {
        "id": id,
        "text": text,
        "title": title,
        "score": float(score),
        "rank": rank,
        "metadata": json.loads(metadata) if metadata else {},
    }
