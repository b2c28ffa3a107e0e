"""Unit: the index of vectors: what is near comes first, exactly or by a graph; changes, files, threads, loops."""

from __future__ import annotations

import array
import asyncio
import math
import random
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dspex
from dspex import VectorIndex
from dspex.errors import InvalidInput, MissingDependency, SettingsError, UnknownName, UsageError
from dspex.retrieval.exact_search import Neighbors, NumpySearch, PlainSearch, exact_search
from dspex.retrieval.graph_search import GraphSearch
from dspex.testing import FakeLM

DOCUMENTS = [
    {"id": "fr", "title": "France", "text": "Paris is the capital of France.", "year": 1},
    {"id": "it", "text": "Rome is the capital of Italy.", "tags": ["a"]},
    "Bees fly and make honey.",
]


def letters(texts: list[str]) -> list[list[float]]:
    return [[float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def has_usearch() -> bool:
    try:
        GraphSearch()
    except MissingDependency:
        return False
    return True


needs_usearch = pytest.mark.skipif(not has_usearch(), reason="the extra 'vectors' is not installed")
KINDS = ["numpy", "plain", pytest.param("graph", marks=needs_usearch)]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., VectorIndex]:
    """Make an index that searches in each way."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "numpy", None)
    options = {"approximate": True} if request.param == "graph" else {}

    def index(documents: Any = (), **more: Any) -> VectorIndex:
        return VectorIndex(documents, **{"embedder": letters, **options, **more})

    return index


def found(index: VectorIndex, query: str, k: int = 5) -> list[str]:
    return [passage["id"] for passage in index.search(query, k)]


def test_the_nearest_passage_comes_first_with_its_facts(make: Callable[..., VectorIndex]) -> None:
    """unit"""
    index = make(DOCUMENTS)
    first, second = index.search("the capital Paris, of France", k=2)
    assert (first["id"], first["title"], first["rank"], first["metadata"]) == ("fr", "France", 1, {"year": 1})
    assert (second["id"], second["rank"], second["metadata"]) == ("it", 2, {"tags": ["a"]})
    assert 1 > first["score"] > second["score"] > 0
    assert found(index, "bees, honey and bees", 1) == ["#3"]
    assert index.search(str(DOCUMENTS[2]), 1)[0]["score"] == pytest.approx(1.0, abs=1e-5)


def test_relevance_is_that_of_a_models_vectors() -> None:
    """unit: asked over HTTP; documents in one request, each query in another."""
    with FakeLM() as lm:
        index = VectorIndex(DOCUMENTS, embedder=lm)
        assert found(index, "which capital has France?", 1) == ["fr"]
        assert found(index, "who can make honey?", 1) == ["#3"]
        assert [len(request.body["input"]) for request in lm.requests] == [3, 1, 1]


def test_a_known_id_is_replaced_and_a_removed_one_is_gone(make: Callable[..., VectorIndex]) -> None:
    """unit: also within one list, and by an id such as the index gives itself."""
    index = make(DOCUMENTS)
    assert index.add([{"id": "fr", "text": "zzz"}, {"id": "fr", "text": "xxx"}, {"id": "#3", "text": "yyy"}]) == 3
    assert len(index) == 3 and found(index, "xxx", 1) == ["fr"] and found(index, "yyy", 1) == ["#3"]
    assert "Paris is the capital of France." not in [passage["text"] for passage in index.search("Paris", 9)]
    assert (index.remove("fr"), index.remove("fr"), index.remove("none")) == (True, False, False)
    assert sorted(found(index, "xxx", 9)) == ["#3", "it"]
    assert index.remove("it") and index.remove("#3") and index.search("xxx") == [] and len(index) == 0
    assert index.add(["again"]) == 1 and len(index.search("again")) == 1


@pytest.mark.parametrize(("k", "count"), [(-1, 0), (0, 0), (1, 1), (10**30, 3)])
def test_k_is_the_most_that_comes_back(k: int, count: int, make: Callable[..., VectorIndex]) -> None:
    """unit: at the ends of its range too."""
    assert len(make(DOCUMENTS).search("capital", k)) == count
    assert make().search("capital", k) == []


@pytest.mark.parametrize(
    ("query", "k"), [(None, 3), (b"a", 3), ("", 3), ("\ud800", 3)] + [("a", k) for k in ("3", 1.5, True)]
)
def test_a_search_for_what_is_no_text_is_refused(query: Any, k: Any) -> None:
    """unit: in both forms, before the embedder is asked."""
    asked: list[Any] = []
    index = VectorIndex(["a"], embedder=lambda texts: asked.append(texts) or letters(texts))
    for search in (lambda: index.search(query, k), lambda: asyncio.run(index.asearch(query, k))):
        with pytest.raises(InvalidInput):
            search()
    assert asked == [["a"]]


@pytest.mark.parametrize(
    "document",
    [{"title": "no text"}, {"text": 3}, {"text": "x", "bad": object()}, 5, None, {"text": "\ud800"}, "", {"text": ""}],
)
def test_a_document_that_cannot_be_kept_is_refused(document: Any) -> None:
    """unit: nothing of the batch is embedded or added."""
    asked: list[Any] = []
    index = VectorIndex(embedder=lambda texts: asked.append(texts) or letters(texts))
    with pytest.raises(InvalidInput):
        index.add([{"text": "fine"}, document])
    with pytest.raises(InvalidInput):
        asyncio.run(index.aadd([{"text": "fine"}, document]))
    assert (len(index), asked) == (0, [])


@pytest.mark.parametrize("documents", ["one text", b"bytes", {"text": "one document"}, 3])
def test_what_is_no_list_of_documents_is_refused(documents: Any) -> None:
    """unit"""
    with pytest.raises(InvalidInput, match="list of texts or mappings"):
        VectorIndex(documents, embedder=letters)


def test_vectors_that_do_not_fit_are_refused(make: Callable[..., VectorIndex]) -> None:
    """unit: of documents (none is added) and of queries; vectors of zeros are far from everything."""
    made: list[Any] = [[[1.0, 0.0]], [[0.0, 0.0]], [[1.0]], [[1.0, 2.0, 3.0]], [[float("nan"), 1.0]], [[0.0, 1.0]]]
    index = make(["a"], embedder=lambda texts: made.pop(0))
    index.add(["zeros"])
    for words in ("1 numbers, not of 2", "3 numbers, not of 2", "not finite"):
        with pytest.raises(InvalidInput, match=words):
            index.add(["b"]) if words != "3 numbers, not of 2" else index.search("q")
    assert [passage["score"] for passage in index.search("q")] == [0.0, 0.0]


def test_too_many_documents_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: before they are embedded."""
    monkeypatch.setattr("dspex.retrieval.vector_index.DOCUMENTS_MOST", 3)
    index = VectorIndex(["a", "b"], embedder=letters)
    with pytest.raises(InvalidInput, match="at most 3 documents, not 4"):
        index.add(["c", "d"])


@pytest.mark.parametrize("given", [None, 3, "no-such-name"])
def test_what_is_no_embedder_is_refused(given: Any) -> None:
    """unit: when the index is made, also an empty one."""
    with pytest.raises((SettingsError, UnknownName)):
        VectorIndex(embedder=given)


def test_queries_may_have_an_embedder_of_their_own() -> None:
    """unit"""
    index = VectorIndex(
        ["aaa", "bbb"], embedder=letters, query_embedder=lambda texts: letters([t[::-1] + "b" * 9 for t in texts])
    )
    assert index.search("a", 1)[0]["text"] == "bbb"


def test_without_usearch_a_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: with what to install."""
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(MissingDependency, match=r"dspex\[vectors\]") as refused:
        VectorIndex(embedder=letters, approximate=True)
    assert (refused.value.package, refused.value.extra) == ("usearch", "vectors")


def test_a_closed_index_says_so(make: Callable[..., VectorIndex], tmp_path: Path) -> None:
    """unit: after its block, on every verb; closing twice is harmless."""
    with make(DOCUMENTS) as index:
        assert len(index) == 3
    index.close()
    for use in (
        lambda: index.search("a"),
        lambda: asyncio.run(index.asearch("a")),
        lambda: index.add(["x"]),
        lambda: index.remove("fr"),
        lambda: index.save(tmp_path / "index"),
        lambda: len(index),
    ):
        with pytest.raises(UsageError, match="closed"):
            use()


def test_awaited_forms_do_the_same(make: Callable[..., VectorIndex]) -> None:
    """unit"""

    async def use() -> list[Any]:
        index = make()
        assert await index.aadd(DOCUMENTS) == 3 and await index.aadd([]) == 0
        both = await asyncio.gather(index.asearch("Paris", 1), index.asearch("bees", 1))
        return [passages[0]["id"] for passages in both]

    assert asyncio.run(use()) == ["fr", "#3"]


def test_search_from_many_threads_while_it_changes(make: Callable[..., VectorIndex]) -> None:
    """unit: nothing is lost, nothing that was removed is found."""
    index = make(["seed"])
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                index.add([{"id": f"{number}-{turn}", "text": chr(97 + number) * (turn + 1)}])
                assert index.search(chr(97 + number), k=1)
                if turn % 2:
                    assert index.remove(f"{number}-{turn}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failures, len(index)) == ([], 61)


# -- searching -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=120), st.integers(1, 12))
def test_both_exact_searches_agree(steps: list[tuple[bool, int]], k: int) -> None:
    """unit: after any additions and removals, ties included: the oldest of equals goes first."""
    dice = random.Random(7)
    ways: list[Neighbors] = [exact_search(), PlainSearch()]
    assert type(ways[0]) is NumpySearch
    alive: set[int] = set()
    for number, (is_removal, which) in enumerate(steps, start=1):
        if is_removal and alive:
            gone = sorted(alive)[which % len(alive)]
            alive.discard(gone)
            for way in ways:
                way.remove(gone)
        else:
            vector = array.array("f", dice.choice(([1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0])))
            alive.add(number)
            for way in ways:
                way.add([number], [vector])
    first, second = (way.nearest(array.array("f", [1.0, 0.0]), k) for way in ways)
    assert [number for number, _ in first] == [number for number, _ in second]
    assert [score for _, score in first] == pytest.approx([score for _, score in second])
    assert all(ways[0].vector(number) == ways[1].vector(number) for number in alive)


@needs_usearch
def test_a_graph_finds_nearly_what_comparing_all_finds() -> None:
    """unit: 2,000 vectors of 32 numbers; 95 of 100 at least, with the same scores."""
    dice = random.Random(3)

    def vector() -> Any:
        raw = [dice.gauss(0, 1) for _ in range(32)]
        return array.array("f", [each / math.hypot(*raw) for each in raw])

    vectors = [vector() for _ in range(2000)]
    exact, graph = exact_search(), GraphSearch()
    for way in (exact, graph):
        way.add(range(1, 2001), vectors)
    hits = 0
    for _ in range(50):
        query = vector()
        near, roughly = dict(exact.nearest(query, 10)), dict(graph.nearest(query, 10))
        hits += len(near.keys() & roughly.keys())
        assert all(roughly[number] == pytest.approx(near[number], abs=1e-4) for number in near.keys() & roughly.keys())
    assert hits >= 475


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_saved_index_is_loaded_without_embedding_anew(make: Callable[..., VectorIndex], tmp_path: Path) -> None:
    """unit: with ids, titles, metadata and scores; whoever loads it may search in another way."""
    index = make(DOCUMENTS)
    index.remove("it")
    index.save(tmp_path / "index")
    asked: list[Any] = []
    loaded = VectorIndex.load(tmp_path / "index", embedder=lambda texts: asked.append(texts) or letters(texts))
    assert (asked, len(loaded)) == ([], 2)
    for ours, theirs in zip(index.search("Paris"), loaded.search("Paris"), strict=True):
        assert {**ours, "score": 0} == {**theirs, "score": 0} and ours["score"] == pytest.approx(theirs["score"])
    loaded.add(["new"])  # in memory alone
    assert found(loaded, "new", 1) == ["#4"] and len(VectorIndex.load(tmp_path / "index", embedder=letters)) == 2


def test_a_saved_file_is_the_users_alone(tmp_path: Path) -> None:
    """security: documents may be private; what was there is replaced in one go, with no other file left."""
    path = tmp_path / "index"
    path.write_text("something else")
    path.chmod(0o644)
    VectorIndex(DOCUMENTS, embedder=letters).save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["index"]
    with pytest.raises(OSError):
        VectorIndex(DOCUMENTS, embedder=letters).save(tmp_path / "no" / "folder")


def test_an_index_with_a_path_keeps_each_change(make: Callable[..., VectorIndex], tmp_path: Path) -> None:
    """unit: and continues where it was."""
    path = tmp_path / "index"
    first = make(DOCUMENTS, path=path)
    first.add([{"id": "fr", "text": "Lyon"}, "more"])
    first.remove("it")
    second = make(["other"], path=path)
    assert sorted(found(second, "Lyon", 9)) == ["#3", "#5", "#6", "fr"]
    assert found(second, "Lyon", 1) == ["fr"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and [each.name for each in tmp_path.iterdir()] == ["index"]


def test_a_change_by_another_process_is_never_lost(tmp_path: Path) -> None:
    """unit: whoever read the file before it must read it again; its own index stays as it was."""
    path = tmp_path / "index"
    first, second = (VectorIndex(path=path, embedder=letters) for _ in range(2))
    first.add(["one"])
    with pytest.raises(UsageError, match="load it again"):
        second.add(["two"])
    assert (len(first), len(second)) == (1, 0)
    third = VectorIndex(path=path, embedder=letters)
    third.add(["three"])
    with pytest.raises(UsageError, match="load it again"):
        first.remove("#1")
    assert len(VectorIndex.load(path, embedder=letters)) == 2 and len(first) == 1


def test_an_embedder_that_fails_changes_nothing(tmp_path: Path) -> None:
    """unit: neither the index nor its file."""

    def failing(texts: list[str]) -> Any:
        raise OSError("no embedder today")

    index = VectorIndex(DOCUMENTS, embedder=letters, path=tmp_path / "index")
    before = (tmp_path / "index").read_bytes()
    broken = VectorIndex(embedder=failing, path=tmp_path / "index")
    with pytest.raises(OSError, match="today"):
        broken.add(["x"])
    assert (tmp_path / "index").read_bytes() == before and len(index) == len(broken) == 3


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    """unit: its vectors say nothing about this model's; a function says no name, and its width tells."""
    path = tmp_path / "index"
    with FakeLM(model="openai/one") as one, FakeLM(model="openai/two") as two:
        VectorIndex(DOCUMENTS, embedder=one).save(path)
        assert found(VectorIndex.load(path, embedder=one), "capital of France", 1) == ["fr"]
        for use in (lambda: VectorIndex.load(path, embedder=two), lambda: VectorIndex(path=path, embedder=two)):
            with pytest.raises(InvalidInput, match=r"'openai/one'.*'openai/two'"):
                use()
    with pytest.raises(InvalidInput, match="26 numbers, not of 64"):
        VectorIndex.load(path, embedder=letters).search("x")


def test_a_function_of_embed_is_an_embedder() -> None:
    """unit: with options of its own."""
    with FakeLM() as lm:
        index = dspex.VectorIndex(DOCUMENTS, embedder=lambda texts: dspex.embed(lm, texts, dimensions=16))
        assert found(index, "capital of France", 1) == ["fr"]
        assert {request.body["dimensions"] for request in lm.requests} == {16}
