"""unit: BM25 and vector search."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.errors import InvalidInput
from dspex.inprocess.retrieval import BM25Index, VectorIndex

DOCUMENTS = [
    {"id": "fr", "title": "France", "text": "Paris is the capital of France.", "year": 1},
    {"id": "de", "title": "Germany", "text": "Berlin is the capital of Germany.", "tags": ["a"]},
    "The mitochondrion is the powerhouse of the cell.",
]


def test_best_passage_comes_first_with_its_facts() -> None:
    """unit: rank, score, title and metadata; words are stemmed."""
    index = BM25Index(DOCUMENTS)
    passages = index.search("What is the capitals of France?", k=2)
    assert [(p["id"], p["rank"]) for p in passages] == [("fr", 1), ("de", 2)]
    assert passages[0]["score"] > passages[1]["score"] > 0
    assert passages[0]["metadata"] == {"year": 1}
    assert passages[1]["metadata"] == {"tags": ["a"]}
    assert index.search("powerhouse")[0]["text"] == DOCUMENTS[2]


def test_document_with_a_known_id_replaces_the_other() -> None:
    """unit: add is an upsert; remove forgets."""
    index = BM25Index(DOCUMENTS)
    index.add([{"id": "fr", "text": "Lyon"}])
    assert (len(index), index.search("Paris"), index.search("lyon")[0]["id"]) == (3, [], "fr")
    assert (index.remove("fr"), index.remove("fr"), len(index)) == (True, False, 2)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_query(query: str) -> None:
    """unit: FTS5's syntax is never interpreted."""
    for passage in SHARED.search(query + ' NEAR("x" AND * OR ^capital'):
        assert passage["rank"] >= 1


SHARED = BM25Index(DOCUMENTS)


@pytest.mark.parametrize("document", [{"title": "no text"}, {"text": 3}, {"text": "x", "bad": object()}])
def test_document_that_cannot_be_kept_is_refused(document: dict[str, object]) -> None:
    """unit: nothing of the batch is added."""
    index = BM25Index()
    with pytest.raises(InvalidInput):
        index.add([{"text": "fine"}, document])
    assert len(index) == 0


def test_search_from_many_threads_while_adding() -> None:
    """unit: no lock errors, no lost documents."""
    index = BM25Index()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(30):
                index.add([{"id": f"{number}-{turn}", "text": f"word{number} capital"}])
                assert index.search(f"word{number}", k=1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failures, len(index)) == ([], 180)


def letters(texts: list[str]) -> list[list[float]]:
    return [[float(text.lower().count(letter)) for letter in "abcdefghij"] for text in texts]


@pytest.mark.parametrize("numpy", [True, False])
def test_nearest_vector_comes_first(numpy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: the same order with and without numpy."""
    if not numpy:
        monkeypatch.setitem(sys.modules, "numpy", None)
    index = VectorIndex(letters, [{"id": "ab", "text": "aab", "kind": "x"}, "cccd"])
    index.add(["aaa"])
    found = index.search("aa", k=2)
    assert [(p["text"], p["rank"]) for p in found] == [("aaa", 1), ("aab", 2)]
    assert found[0]["score"] == pytest.approx(1.0)
    assert found[1]["metadata"] == {"kind": "x"}
    assert index.search("zzz", k=1)[0]["score"] == 0.0


def test_embedder_that_miscounts_is_reported() -> None:
    """unit: wrong number, wrong width."""
    with pytest.raises(InvalidInput, match="1 vectors of 2 texts"):
        VectorIndex(lambda texts: [[1.0]], ["a", "b"])
    index = VectorIndex(letters, ["a"])
    index._embed = lambda texts: [[1.0]]
    with pytest.raises(InvalidInput, match="1 numbers, not of 10"):
        index.search("x")
