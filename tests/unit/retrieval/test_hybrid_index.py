"""Unit: one ranking of several indexes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dspex
from dspex import BM25Index, HybridIndex, VectorIndex
from dspex.errors import InvalidInput, SettingsError
from dspex.testing import FakeLM


class Fixed:
    """Finds the same texts, whatever is asked."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked: list[tuple[str, int]] = []

    def search(self, query: str, k: int) -> list[dict[str, Any]]:
        self.asked.append((query, k))
        return [{"text": text, "score": 9.9, "rank": 1, "id": f"{id(self)}-{text}"} for text in self.texts[:k]]


class Awaited(Fixed):
    """The same, asynchronously."""

    async def asearch(self, query: str, k: int) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        return super().search(query, k)


def ranked(passages: list[dict[str, Any]]) -> list[tuple[str, int, float]]:
    return [(passage["text"], passage["rank"], round(passage["score"], 6)) for passage in passages]


def test_ranks_are_added_up() -> None:
    """unit: 1 / (60 + rank) in each that finds a text; what both find goes before what one of them has first."""
    index = HybridIndex(Fixed("a", "b", "c"), Awaited("d", "b", "a"))
    expected = [
        ("a", 1, round(1 / 61 + 1 / 63, 6)),
        ("b", 2, round(2 / 62, 6)),
        ("d", 3, round(1 / 61, 6)),
    ]
    assert ranked(index.search("q", 3)) == expected
    assert ranked(asyncio.run(index.asearch("q", 3))) == expected


def test_each_is_asked_for_more_than_is_wanted() -> None:
    """unit: what is second everywhere may be the best of all."""
    first, second = Fixed(*"abcdefgh"), Fixed(*"hgfedcba")
    HybridIndex(first, second).search("q", 1)
    HybridIndex(first, second).search("q", 30)
    assert first.asked == second.asked == [("q", 20), ("q", 120)]


def test_weights_say_how_much_each_counts() -> None:
    """unit: 0 leaves one out, also what it alone finds."""
    first, second = Fixed("a", "b"), Fixed("b", "c")
    assert [text for text, *_ in ranked(HybridIndex(first, second, weights=[1, 0]).search("q"))] == ["a", "b"]
    assert [text for text, *_ in ranked(HybridIndex(first, second, weights=[0.1, 5]).search("q"))] == ["b", "c", "a"]


def test_a_text_that_one_index_finds_twice_counts_once() -> None:
    """unit: by its better rank."""
    assert ranked(HybridIndex(Fixed("a", "a", "b"), Fixed("b")).search("q")) == [
        ("b", 1, round(1 / 62 + 1 / 61, 6)),
        ("a", 2, round(1 / 61, 6)),
    ]


def test_words_and_meaning_complete_each_other() -> None:
    """unit: a name that only words find, and an inflection that only stems do."""
    documents = ["The X-4711 pump is red.", "Pumping stations need power.", "Bees fly."]
    with FakeLM() as lm:
        index = HybridIndex(BM25Index(documents), VectorIndex(documents, embedder=lm))
        assert index.search("X-4711", 1)[0]["text"] == documents[0]
        assert [passage["text"] for passage in index.search("red pump", 2)] == documents[:2]
        assert index.add(["Wasps sting."]) == 1 and index.search("wasps", 1)[0]["text"] == "Wasps sting."


@pytest.mark.parametrize(
    ("indexes", "options"),
    [([], {}), ([Fixed("a")], {}), ([Fixed("a"), "b"], {})]
    + [([Fixed("a"), Fixed("b")], {"weights": weights}) for weights in ([1], [1, -1], [0, 0], [1, "2"], [1, True])],
)
def test_what_cannot_be_fused_is_refused(indexes: Any, options: Any) -> None:
    """unit"""
    with pytest.raises(SettingsError):
        HybridIndex(*indexes, **options)


def test_what_an_index_gives_is_checked() -> None:
    """unit: texts alone, asynchronous ones, and documents for one that takes none."""

    class Texts:
        def search(self, query: str, k: int) -> list[str]:
            return ["a"]

    class Late:
        async def search(self, query: str, k: int) -> list[Any]:
            return [{"text": "late"}]

    with pytest.raises(InvalidInput, match="a dict with a 'text'"):
        HybridIndex(Fixed("a"), Texts()).search("q")  # type: ignore[arg-type]
    late = HybridIndex(Fixed("a"), Late())  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="asearch"):
        late.search("q")
    assert [text for text, *_ in ranked(asyncio.run(late.asearch("q")))] == ["a", "late"]
    with pytest.raises(SettingsError, match="takes no documents"):
        late.add(["x"])
    for query, k in ((3, 1), ("q", "1")):
        with pytest.raises(InvalidInput):
            late.search(query, k)  # type: ignore[arg-type]
    assert late.search("q", 0) == []


def test_the_names_are_public() -> None:
    """unit"""
    assert (dspex.HybridIndex, dspex.VectorIndex) == (HybridIndex, VectorIndex)
