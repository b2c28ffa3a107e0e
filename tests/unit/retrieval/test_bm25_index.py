"""Unit: BM25."""

from __future__ import annotations

import gc
import sqlite3
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dspex
from dspex import BM25Index
from dspex.errors import InvalidInput, SettingsError, UsageError

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


@pytest.mark.parametrize(
    "document", [{"title": "no text"}, {"text": 3}, {"text": "x", "bad": object()}, 5, None, {"text": "\ud800"}]
)
def test_document_that_cannot_be_kept_is_refused(document: Any) -> None:
    """unit: nothing of the batch is added."""
    index = BM25Index()
    with pytest.raises(InvalidInput):
        index.add([{"text": "fine"}, document])
    assert len(index) == 0


@pytest.mark.parametrize("documents", ["one text", b"bytes", {"text": "one document"}, 3])
def test_what_is_no_list_of_documents_is_refused(documents: Any) -> None:
    """unit: a text is not indexed letter by letter, nor a mapping key by key."""
    with pytest.raises(InvalidInput, match="list of texts or mappings"):
        BM25Index(documents)


@pytest.mark.parametrize(("query", "k"), [(None, 3), (b"Paris", 3), ("Paris", "3"), ("Paris", 1.5), ("Paris", True)])
def test_a_search_for_what_is_no_text_is_refused(query: Any, k: Any) -> None:
    """unit: typed, before anything is looked up."""
    with pytest.raises(InvalidInput):
        SHARED.search(query, k)


@pytest.mark.parametrize(("k", "found"), [(-1, 0), (0, 0), (1, 1), (10**30, 2)])
def test_k_is_the_most_that_comes_back(k: int, found: int) -> None:
    """unit: at the ends of its range too."""
    assert len(SHARED.search("capital", k)) == found


@pytest.mark.parametrize(
    ("key", "value"),
    [("tokenize", "nonsense"), ("tokenize", "x'); --"), ("tokenize", "\ud800"), ("title_weight", -1.0)]
    + [("title_weight", value) for value in (float("nan"), float("inf"), "2", True)],
)
def test_a_setting_that_cannot_be_is_named(key: str, value: Any) -> None:
    """unit: SettingsError with the key, whatever SQLite says."""
    with pytest.raises(SettingsError) as caught:
        BM25Index(["text"], **{key: value})
    assert caught.value.key == key


def test_a_title_counts_as_much_as_its_weight() -> None:
    """unit: 0 leaves titles out of the ranking."""
    documents = [{"title": "owl", "text": "a bird that flies"}, {"title": "bird", "text": "an owl that flies"}]
    by_title = BM25Index(documents, title_weight=10.0).search("owl")
    by_text = BM25Index(documents, title_weight=0.0).search("owl")
    assert (by_title[0]["title"], by_text[0]["title"]) == ("owl", "bird")


def test_a_closed_index_says_so() -> None:
    """unit: after its block, on every verb; closing twice is harmless."""
    with dspex.BM25Index(DOCUMENTS) as index:
        assert len(index) == 3
    index.close()
    for use in (
        lambda: index.search("Paris"),
        lambda: index.add(["x"]),
        lambda: index.remove("fr"),
        lambda: len(index),
    ):
        with pytest.raises(UsageError, match="closed"):
            use()


def test_an_index_that_is_dropped_closes_its_database() -> None:
    """unit: at once, not when the connection is collected."""
    index = BM25Index(DOCUMENTS)
    database = index._database
    del index
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")


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
