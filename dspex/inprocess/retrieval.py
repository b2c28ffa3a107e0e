"""Retrieval in the parent: BM25 over SQLite's full-text index, and cosine similarity over the user's own embeddings.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dspex.errors import InvalidInput

Passage = dict[str, Any]
Document = str | Mapping[str, Any]
Embedder = Callable[[list[str]], Sequence[Sequence[float]]]

_WORD = re.compile(r"\w+", re.UNICODE)
_TERMS_MOST = 64


class BM25Index:
    """Documents found by their words. A document is a str, or a mapping with "text" and optionally "id", "title" and
    anything else, which comes back as its metadata.

    Args:
        documents: What to index first.
        tokenize: FTS5's tokenizer: "porter unicode61" (English stems), "unicode61", "trigram" (parts of words).
        title_weight: How much more a word in the title counts.
    """

    def __init__(
        self,
        documents: Iterable[Document] = (),
        *,
        tokenize: str = "porter unicode61",
        title_weight: float = 2.0,
    ) -> None:
        self._lock = threading.Lock()
        self._weights = (float(title_weight), 1.0)
        self._database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        quoted = tokenize.replace("'", "''")
        self._database.execute(f"CREATE VIRTUAL TABLE words USING fts5(title, text, tokenize='{quoted}')")
        self._database.execute("CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT UNIQUE, metadata TEXT)")
        self.add(documents)

    def add(self, documents: Iterable[Document]) -> int:
        """Index more documents; one with a known id takes the other's place. How many were added.

        Raises:
            InvalidInput: a document without text, or with metadata that is not JSON.
        """
        rows = [_row_of(document) for document in documents]
        with self._lock, self._database as database:
            for id, title, text, metadata in rows:
                self._remove(id)
                cursor = database.execute("INSERT INTO words (title, text) VALUES (?, ?)", (title, text))
                number = cursor.lastrowid
                name = id if id is not None else f"#{number}"  # never equal to a later id of the user
                database.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (number, name, metadata))
        return len(rows)

    def remove(self, id: str) -> bool:
        """Forget a document; whether it was there."""
        with self._lock, self._database:
            return self._remove(id)

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """The `k` best passages for any of the query's words; the query is plain text, never FTS5 syntax."""
        terms = list(dict.fromkeys(_WORD.findall(query)))[:_TERMS_MOST]
        if not terms or k < 1:
            return []
        match = " OR ".join(f'"{term}"' for term in terms)
        with self._lock:
            rows = self._database.execute(
                "SELECT d.id, w.title, w.text, d.metadata, -bm25(words, ?, ?) AS score FROM words AS w "
                "JOIN documents AS d ON d.number = w.rowid WHERE words MATCH ? ORDER BY score DESC, d.number LIMIT ?",
                (*self._weights, match, k),
            ).fetchall()
        return [_passage(rank, *row) for rank, row in enumerate(rows, start=1)]

    def close(self) -> None:
        """Free the index."""
        with self._lock:
            self._database.close()

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._database.execute("SELECT count(*) FROM documents").fetchone()
        return int(count)

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
        """Index more documents. How many were added.

        Raises:
            InvalidInput: a document without text, or embeddings of another number or length.
        """
        rows = [_row_of(document) for document in documents]
        if not rows:
            return 0
        vectors = self._vectors([text for _, _, text, _ in rows])
        with self._lock:  # a search reads the pair in one go and is never disturbed
            old, matrix = self._state
            matrix = _Matrix(vectors) if matrix is None else matrix.extended(vectors)
            self._state = ((*old, *rows), matrix)
        return len(rows)

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """The `k` passages nearest to the query."""
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


def _row_of(document: Document) -> _Row:
    if isinstance(document, str):
        return None, "", document, ""
    rest = dict(document)
    id, title, text = rest.pop("id", None), rest.pop("title", None) or "", rest.pop("text", None)
    if not isinstance(text, str):
        raise InvalidInput("A document must be a str, or a mapping with a 'text'.", field="text")
    try:
        metadata = json.dumps(rest) if rest else ""
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"A document's metadata must be JSON: {error}.", field="metadata") from None
    return None if id is None else str(id), str(title), text, metadata


def _passage(rank: int, id: str, title: str, text: str, metadata: str, score: float) -> Passage:
    return {
        "id": id,
        "text": text,
        "title": title,
        "score": float(score),
        "rank": rank,
        "metadata": json.loads(metadata) if metadata else {},
    }
