"""`HybridIndex`: one ranking of what several retrievers find, by words and by meaning."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ..errors import InvalidInput, SettingsError
from .documents import Document, Passage, check_search

DAMPING = 60  # of Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", SIGIR 2009
_DEPTH = 4  # times k passages are asked of each: what is second everywhere may be the best of all
_DEPTH_LEAST = 20


class Searchable(Protocol):
    """An index: `BM25Index`, `VectorIndex`, or one of the user's own."""

    def search(self, query: str, k: int) -> Sequence[Passage]:
        """Return the best `k` passages for a query, the best first."""
        ...


class HybridIndex:
    """Several indexes as one, by reciprocal rank fusion: a passage counts 1 / (60 + rank) in each that finds it.

        index = dspex.HybridIndex(dspex.BM25Index(documents), dspex.VectorIndex(documents, embedder=...))

    A passage is known by its text, so the indexes should hold the same documents. Each stays usable by itself.

    Args:
        indexes: Two or more objects with `search(query, k)`.
        weights: How much each counts; default: the same.

    Raises:
        SettingsError: fewer than two, one that cannot search, or weights that do not fit.
    """

    def __init__(self, *indexes: Searchable, weights: Sequence[float] | None = None) -> None:
        if len(indexes) < 2 or not all(callable(getattr(index, "search", None)) for index in indexes):
            raise SettingsError("A HybridIndex is made of two or more objects with search(query, k).", key="indexes")
        given = [1.0] * len(indexes) if weights is None else list(weights)
        if len(given) != len(indexes) or not all(_is_weight(each) for each in given) or not any(given):
            raise SettingsError(
                f"weights is {weights!r}; it is a number of 0 or more for each of the {len(indexes)} indexes.",
                key="weights",
            )
        self._indexes = indexes
        self._weights = given

    def add(self, documents: Iterable[Document]) -> int:
        """Add documents to each index; return how many were given. What one refuses, the next ones are not given.

        Raises:
            SettingsError: one of the indexes takes none.
            DspexError: as `add` of the indexes.
        """
        given = list(documents)
        if odd := next((index for index in self._indexes if not hasattr(index, "add")), None):
            raise SettingsError(f"A {type(odd).__name__} takes no documents.", key="indexes")
        for index in self._indexes:
            index.add(given)  # type: ignore[attr-defined]
        return len(given)

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """Return the `k` best passages; `score` is the sum of what the ranks count.

        Raises:
            InvalidInput: the query is no text, `k` no whole number, or an index is asynchronous or gives no passages.
            DspexError: as `search` of the indexes.
        """
        check_search(query, k)
        if k < 1:
            return []
        return self._fused([index.search(query, _depth(k)) for index in self._indexes], k)

    async def asearch(self, query: str, k: int = 5) -> list[Passage]:
        """`search`, awaited; the indexes are asked at the same time, those that block in threads.

        Raises:
            DspexError: as `search`.
        """
        check_search(query, k)
        if k < 1:
            return []
        found = await asyncio.gather(*(_asked(index, query, _depth(k)) for index in self._indexes))
        return self._fused(found, k)

    def _fused(self, rankings: Sequence[Any], k: int) -> list[Passage]:
        scores: dict[str, float] = {}
        passages: dict[str, Passage] = {}
        for weight, ranking in zip(self._weights, rankings, strict=True):
            if inspect.isawaitable(ranking):
                if inspect.iscoroutine(ranking):
                    ranking.close()
                raise InvalidInput("One of the indexes is asynchronous: use await index.asearch(...).")
            texts: dict[str, Passage] = {}
            for each in ranking:  # of one text twice, the better rank counts
                texts.setdefault(_text_of(each), each)
            for rank, (text, each) in enumerate(texts.items(), start=1):
                scores[text] = scores.get(text, 0.0) + weight / (DAMPING + rank)
                passages.setdefault(text, each)
        best = sorted((text for text in scores if scores[text] > 0), key=lambda text: -scores[text])[:k]
        return [{**passages[text], "score": scores[text], "rank": rank} for rank, text in enumerate(best, start=1)]


async def _asked(index: Any, query: str, k: int) -> Any:
    asearch = getattr(index, "asearch", None)
    if asearch is not None:
        return await asearch(query, k)
    found = await asyncio.to_thread(index.search, query, k)
    return await found if inspect.isawaitable(found) else found


def _depth(k: int) -> int:
    return max(_DEPTH * k, _DEPTH_LEAST)


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _text_of(found: Any) -> str:
    text = found.get("text") if isinstance(found, dict) else None
    if not isinstance(text, str):
        raise InvalidInput(f"A passage is a dict with a 'text'; this one is a {type(found).__name__}.")
    return text
