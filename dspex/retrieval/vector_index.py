"""`VectorIndex`: documents found by the cosine of their embeddings, in memory and, if asked for, in a file too.

Any thread, any event loop. Embedders are asked outside the lock; what is found is found in one go. Not covered: how
texts are cut into documents, remote vector databases (give `rag` a function that asks one).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, UsageError
from .documents import Document, DocumentRow, Passage, check_search, passage, rows_of
from .embed import EmbeddingCall
from .exact_search import Neighbors, exact_search
from .graph_search import GraphSearch
from .vector_file import DOCUMENTS_MOST, KeptDocument, KeptIndex, VectorFile
from .vectors import checked_texts, require_width, unit

if TYPE_CHECKING:
    from ..lm.dialects.embeddings import Vector


class VectorIndex:
    """An index of documents by their meaning, as an embedder sees it.

        texts = ["Paris is in France.", "Rome is in Italy."]
        index = dspex.VectorIndex(texts, embedder="openai/text-embedding-3-small")
        index.search("French cities", k=1)
        # [{"id": "#1", "title": "", "text": "Paris is in France.", "score": ..., "rank": 1, "metadata": {}}]

    A document is a str, or a mapping with a str "text" and optionally "id", "title" and anything else that JSON holds,
    which comes back as `metadata`; its text is what is embedded. A document without an id gets one, such as "#1".
    `score` is the cosine, from -1 to 1.

    Args:
        documents: What to index first.
        embedder: As for `dspex.embed`: a model, the name of a configured LM, a `dspy.Embedder`, or a function from a
            list of texts to as many vectors.
        query_embedder: The same for queries, of models that embed them in another way; default: `embedder`.
        path: A file to keep it in. What the file holds already is in the index, and each change is written at once.
        approximate: Walk a graph of the vectors (usearch, the extra `vectors`) instead of comparing all: for more than
            some 100,000 documents. It may miss a passage, and takes longer to build.

    Raises:
        SettingsError, UnknownName: no such embedder.
        MissingDependency: `approximate` without usearch.
        InvalidInput: a file that is no index, or of another embedder; else as `add`.
    """

    def __init__(
        self,
        documents: Iterable[Document] = (),
        *,
        embedder: Any,
        query_embedder: Any = None,
        path: str | os.PathLike[str] | None = None,
        approximate: bool = False,
    ) -> None:
        self._embedder = EmbeddingCall.of(embedder)
        self._asker = self._embedder if query_embedder is None else EmbeddingCall.of(query_embedder)
        self._lock = threading.Lock()
        self._search: Neighbors | None = GraphSearch() if approximate else exact_search()
        self._rows: dict[int, DocumentRow] = {}
        self._numbers: dict[str, int] = {}  # by id
        self._last = 0
        self._kept = KeptIndex(0, self._embedder.given.name, 0)
        self._file = None if path is None else VectorFile(path)
        if self._file is not None and self._file.exists():
            self._take(self._file.read())
        self.add(documents)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        embedder: Any,
        query_embedder: Any = None,
        approximate: bool = False,
    ) -> VectorIndex:
        """Return the index of a file, which is only read; nothing is embedded anew.

        Raises:
            InvalidInput: the file is missing, no index, damaged, too large, or of another embedder.
            SettingsError, UnknownName, MissingDependency: as for the class.
        """
        made = cls(embedder=embedder, query_embedder=query_embedder, approximate=approximate)
        made._take(VectorFile(path).read())
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index into a file, in place of what it holds; `load` reads it. Its mode is 0600.

        Raises:
            OSError: it cannot be written.
            UsageError: the index is closed.
        """
        with self._lock:
            search = self._open()
            documents = [self._document(number, row, search.vector(number)) for number, row in self._rows.items()]
            kept = KeptIndex(self._kept.width, self._kept.embedder, self._kept.changes, documents)
        VectorFile(path).write(kept)

    def add(self, documents: Iterable[Document]) -> int:
        """Embed and index more documents, replacing those with a known id; return how many were added.

        Raises:
            InvalidInput: a document without text, too many, or vectors that do not fit the others; none is added.
            LMError, BudgetExceeded: the embedder was not to be had.
            UsageError: the index is closed, or its file was changed by another process.
        """
        rows = self._checked(documents)
        return self._put(rows, self._embedder.vectors(_texts(rows))) if rows else 0

    async def aadd(self, documents: Iterable[Document]) -> int:
        """`add`, awaited.

        Raises:
            DspexError: as `add`.
        """
        rows = self._checked(documents)
        if not rows:
            return 0
        vectors = await self._embedder.avectors(_texts(rows))
        return await asyncio.to_thread(self._put, rows, vectors)

    def remove(self, id: str) -> bool:
        """Remove a document; return whether it was there.

        Raises:
            UsageError: the index is closed, or its file was changed by another process.
        """
        with self._lock:
            self._open()
            number = self._numbers.get(id)
            if number is None:
                return False
            self._write((), (number,), self._kept.width)
            self._forget(number)
        return True

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """Return the `k` passages nearest to the query, the nearest first.

        Raises:
            InvalidInput: the query is empty or no text, or `k` no whole number; or its vector does not fit the others.
            LMError, BudgetExceeded: the embedder was not to be had.
            UsageError: the index is closed.
        """
        if not self._is_worth_it(query, k):
            return []
        [vector] = self._asker.vectors(checked_texts([query]))
        return self._nearest(vector, k)

    async def asearch(self, query: str, k: int = 5) -> list[Passage]:
        """`search`, awaited.

        Raises:
            DspexError: as `search`.
        """
        if not self._is_worth_it(query, k):
            return []
        [vector] = await self._asker.avectors(checked_texts([query]))
        return await asyncio.to_thread(self._nearest, vector, k)

    def close(self) -> None:
        """Free the index; it cannot be used any more, its file stays. May be called twice."""
        with self._lock:
            self._search = None
            self._rows = {}
            self._numbers = {}

    def __len__(self) -> int:
        with self._lock:
            self._open()
            return len(self._rows)

    def __enter__(self) -> VectorIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ============================================================================================================

    def _checked(self, documents: Iterable[Document]) -> list[DocumentRow]:
        rows = rows_of(documents)
        with self._lock:
            self._open()
            count = len(self._rows) + len(rows)
        if count > DOCUMENTS_MOST:
            raise InvalidInput(
                f"An index holds at most {DOCUMENTS_MOST:,} documents, not {count:,}: use a vector database.",
                field="documents",
            )
        return rows

    def _put(self, rows: Sequence[DocumentRow], vectors: Sequence[Vector]) -> int:
        units = [unit(vector) for vector in vectors]
        with self._lock:
            search = self._open()
            width = self._kept.width or len(units[0])
            require_width(units, width)
            added = self._numbered(rows, units)
            replaced = [self._numbers[each.id] for each in added if each.id in self._numbers]
            self._write(added, replaced, width)
            for number in replaced:
                self._forget(number)
            search.add([each.number for each in added], [each.vector for each in added])
            self._note(added)
        return len(rows)

    def _numbered(self, rows: Sequence[DocumentRow], units: Sequence[Vector]) -> list[KeptDocument]:
        """Return documents with their numbers and ids; of one id the last counts."""
        found: dict[str, KeptDocument] = {}
        for number, (row, vector) in enumerate(zip(rows, units, strict=True), start=self._last + 1):
            document = self._document(number, row, vector)
            found.pop(document.id, None)
            found[document.id] = document
        return list(found.values())

    @staticmethod
    def _document(number: int, row: DocumentRow, vector: Vector) -> KeptDocument:
        id, title, text, metadata = row
        return KeptDocument(number, f"#{number}" if id is None else id, title, text, metadata, vector)

    def _note(self, documents: Sequence[KeptDocument]) -> None:
        for each in documents:
            self._rows[each.number] = (each.id, each.title, each.text, each.metadata)
            self._numbers[each.id] = each.number
            self._last = max(self._last, each.number)

    def _forget(self, number: int) -> None:
        self._open().remove(number)
        id, *_ = self._rows.pop(number)
        self._numbers.pop(id or "", None)

    def _take(self, kept: KeptIndex) -> None:
        """Fill an empty index with what a file holds."""
        own = self._embedder.given.name
        if own and kept.embedder and own != kept.embedder:
            raise InvalidInput(
                f"The index was made by {kept.embedder!r}; vectors of {own!r} cannot be compared with its.",
                field="embedder",
            )
        with self._lock:
            documents = kept.documents
            self._open().add([each.number for each in documents], [each.vector for each in documents])
            self._note(documents)
            self._kept = KeptIndex(kept.width, kept.embedder, kept.changes)

    def _write(self, added: Sequence[KeptDocument], removed: Sequence[int], width: int) -> None:
        """Note the vectors' width, and bring the file up to date if there is one."""
        kept = KeptIndex(width, self._kept.embedder, self._kept.changes)
        if self._file is not None:
            if not self._file.exists() and not self._rows:
                self._file.write(kept)
            kept = KeptIndex(width, kept.embedder, self._file.change(kept, added, removed))
        self._kept = kept

    def _is_worth_it(self, query: str, k: int) -> bool:
        check_search(query, k)
        with self._lock:
            self._open()
            return bool(self._rows) and k > 0

    def _nearest(self, vector: Vector, k: int) -> list[Passage]:
        require_width([vector], self._kept.width)
        with self._lock:
            found = self._open().nearest(unit(vector), k)
            rows = [(self._rows[number], score) for number, score in found]
        return [
            passage(rank, id or "", title, text, metadata, score)
            for rank, ((id, title, text, metadata), score) in enumerate(rows, start=1)
        ]

    def _open(self) -> Neighbors:
        if self._search is None:
            raise UsageError("This VectorIndex is closed: make a new one of its documents, or load its file.")
        return self._search


def _texts(rows: Sequence[DocumentRow]) -> list[str]:
    return checked_texts([text for _, _, text, _ in rows])
