"""Unit: vectors of texts: batches, order, forms, cache, budgets, and what is refused before or after it is paid."""

from __future__ import annotations

import array
import asyncio
import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import dspex
from dspex.errors import (
    BudgetExceeded,
    InvalidInput,
    LMAuthError,
    LMConfigurationError,
    LMInvalidRequestError,
    LMNotConfiguredError,
    LMProviderError,
    LMRateLimitError,
    LMTimeoutError,
    LMUnsupportedFeatureError,
    SettingsError,
    UnknownName,
)
from dspex.testing import FakeLM, FakeReply

Embed = Callable[..., Any]


@pytest.fixture(params=["embed", "aembed"])
def embed(request: pytest.FixtureRequest) -> Embed:
    """A call in either form."""
    if request.param == "embed":
        return dspex.embed
    return lambda *args, **kwargs: asyncio.run(dspex.aembed(*args, **kwargs))


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(embeddings=lengths, cache=True) as fake:
        yield fake


def lengths(text: str) -> list[float]:
    return [float(len(text)), 1.0]


def inputs(lm: FakeLM) -> list[Any]:
    return [request.body["input"] for request in lm.requests]


def test_batches_are_asked_in_order(embed: Embed, lm: FakeLM) -> None:
    """unit: one row for each text, in numpy's 32-bit floats; the key and the body are those of the endpoint."""
    texts = ["a", "bbb", "cc", "dddd", "eeeee"]
    found = embed(lm, texts, batch_size=2)
    assert (type(found), found.dtype, found.tolist()) == (np.ndarray, np.float32, [[len(t), 1.0] for t in texts])
    assert inputs(lm) == [["a", "bbb"], ["cc", "dddd"], ["eeeee"]]
    assert {request.path for request in lm.requests} == {"/v1/embeddings"}
    assert lm.requests[0].raw == b'{"model":"fake","input":["a","bbb"],"encoding_format":"float"}'


def test_one_text_has_one_row_alone(embed: Embed, lm: FakeLM) -> None:
    """unit: as with dspy.Embedder; any iterable of texts is taken, and no texts cost nothing."""
    assert embed(lm, "four").tolist() == [4.0, 1.0]
    assert embed(lm, iter(["four"])).tolist() == [[4.0, 1.0]]
    assert embed(lm, []).shape == (0, 0) and embed(lm, (), dimensions=8).shape == (0, 8)
    assert inputs(lm) == [["four"]]


def test_without_numpy_there_are_lists(embed: Embed, lm: FakeLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert embed(lm, ["a"]) == [[1.0, 1.0]]
    assert (embed(lm, "a"), embed(lm, [])) == ([1.0, 1.0], [])


def test_numpy_is_imported_for_results_only() -> None:
    """process: neither `import dspex` nor an index of words loads it."""
    code = """
import sys, dspex
dspex.embed, dspex.VectorIndex, dspex.BM25Index(["a b"]).search("a")
print("numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_base64_is_decoded(embed: Embed, lm: FakeLM) -> None:
    """unit: asked for, or sent unasked."""
    assert embed(lm, ["abc"], encoding_format="base64").tolist() == [[3.0, 1.0]]
    assert lm.requests[0].body["encoding_format"] == "base64"
    raw = base64.b64encode(array.array("f", [0.5, -2.0]).tobytes()).decode()
    with answering({"data": [{"embedding": raw}]}) as other:
        assert embed(other, ["abc"]).tolist() == [[0.5, -2.0]]


def test_dimensions_and_further_members_are_sent(embed: Embed) -> None:
    """unit: those of the record too; the call's go first."""
    with FakeLM(extra_body={"input_type": "passage", "truncate": "END"}, user="u1") as lm:
        found = embed(lm, ["a"], dimensions=8, extra_body={"input_type": "query"})
        assert found.shape == (1, 8)
        body = lm.requests[0].body
    assert {name: body[name] for name in ("dimensions", "input_type", "truncate", "user")} == {
        "dimensions": 8,
        "input_type": "query",
        "truncate": "END",
        "user": "u1",
    }


def test_the_cache_answers_the_second_time(embed: Embed, lm: FakeLM) -> None:
    """unit: per batch; not where it is switched off, by the call or the record."""
    first = embed(lm, ["a", "bb"])
    with dspex.Account("test") as account:
        assert (embed(lm, ["a", "bb"]) == first).all()
    assert (len(lm.requests), account.requests, account.cached_requests) == (1, 0, 1)
    embed(lm, ["a", "bb"], cache=False)
    embed(lm, ["a", "bb"], dimensions=2)
    embed(lm.replace(cache=False), ["a", "bb"])
    assert len(lm.requests) == 4


def test_usage_and_cost_are_counted(embed: Embed) -> None:
    """unit: in open accounts; a budget that is spent stops the next batch."""
    with FakeLM(embeddings=lengths, price=(1.0, 0.0)) as lm:
        with dspex.Account("test") as account:
            embed(lm, ["a" * 40, "b"], batch_size=1)
        assert (account.requests, account.tokens, round(account.cost or 0, 9)) == (2, 12, 12e-6)
        bounded = dspex.Account("small", budget_tokens=5)
        with bounded, pytest.raises(BudgetExceeded):
            embed(lm, ["a" * 40, "b", "c"], batch_size=1)
        assert bounded.requests == 1 and len(lm.requests) == 3


@pytest.mark.usefixtures("short_pauses")
def test_failures_are_retried_and_typed(embed: Embed) -> None:
    """unit: as for answers; what is refused is kept by no cache."""
    replies: list[Any] = [FakeReply(status=429), FakeReply(status=503), [1.0, 0.0]]
    with FakeLM(embeddings=lambda text: replies.pop(0), cache=True) as lm:
        assert embed(lm, ["a"]).tolist() == [[1.0, 0.0]]
        assert len(lm.requests) == 3
    for status, kind in ((401, LMAuthError), (400, LMInvalidRequestError), (429, LMRateLimitError)):
        with FakeLM(embeddings=lambda text, status=status: FakeReply(status=status), cache=True, retries=0) as lm:
            for _ in range(2):
                with pytest.raises(kind) as refused:
                    embed(lm, ["a text of mine"])
            assert len(lm.requests) == 2 and "mine" not in str(refused.value)


def test_a_timeout_bounds_all_batches(embed: Embed) -> None:
    """unit"""
    with FakeLM(embeddings=lambda text: FakeReply(hang=True), retries=0) as lm, pytest.raises(LMTimeoutError):
        embed(lm, ["a"], timeout=0.2)


@contextmanager
def answering(body: Any) -> Iterator[FakeLM]:
    """A fake endpoint whose embeddings are this body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with FakeLM(embeddings=lambda text: FakeReply(body=raw), cache=True, retries=0) as lm:
        yield lm


def row(vector: Any, index: Any = None) -> dict[str, Any]:
    return {"embedding": vector} if index is None else {"embedding": vector, "index": index}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([row([1.0])], "1 vectors for 2 texts"),
        ([row([1.0])] * 3, "3 vectors for 2 texts"),
        ([row([1.0]), row([1.0, 2.0])], "vectors of 1 and of 2 numbers"),
        ([row([1.0], 0), row([1.0], 0)], "places are not 0 to 1"),
        ([row([1.0], 0), row([1.0], 2)], "places are not 0 to 1"),
        ([row([1.0], 0), row([1.0], "1")], "places are not 0 to 1"),
        ([row([1.0], 0), row([1.0])], "places are not 0 to 1"),
        ([row([1.0]), row([float("nan")])], "vector 2 numbers that are not finite"),
        ([row([1.0]), row([1e300])], "vector 2 numbers that are not finite"),
        ([row([1.0]), row([10**400])], "vector 2 what is no list of numbers"),
        ([row([1.0]), row(["1.0"])], "vector 2 what is no list of numbers"),
        ([row([1.0]), row({"a": 1})], "vector 2 what is no list of numbers"),
        ([row([1.0]), row(3)], "vector 2 what is no list of numbers"),
        ([row([1.0]), row("no base64!")], "vector 2 what is no list of numbers"),
        ([row([1.0]), row("AAAA")], "vector 2 what is no list of numbers"),
        ([row([1.0]), row([])], "nothing as vector 2"),
        ([row([1.0]), row(None)], "nothing as vector 2"),
        ([row([1.0]), [1.0]], "no object"),
    ],
)
def test_other_vectors_than_were_asked_for_are_refused(data: Any, words: str, embed: Embed) -> None:
    """unit: by both forms, and kept by no cache."""
    with answering({"data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}) as lm:
        with dspex.Account("test") as account:
            for _ in range(2):
                with pytest.raises(LMProviderError, match=words):
                    embed(lm, ["a", "b"])
        assert len(lm.requests) == 2
    assert account.tokens == 10  # it was paid for


@pytest.mark.parametrize("body", [b"<html>", b"[]", {"object": "list"}, {"data": []}, {"data": "x"}])
def test_no_answer_is_an_error(body: Any, embed: Embed) -> None:
    """unit"""
    with answering(body) as lm, pytest.raises(LMProviderError):
        embed(lm, ["a"])


def test_places_decide_the_order(embed: Embed) -> None:
    """unit: where the endpoint names none, the order of the reply does."""
    with answering({"data": [row([2.0], 1), row([1.0], 0)]}) as lm:
        assert embed(lm, ["a", "b"]).tolist() == [[1.0], [2.0]]
    with answering({"data": [row([2.0]), row([1.0])]}) as lm:
        assert embed(lm, ["a", "b"]).tolist() == [[2.0], [1.0]]


def test_another_width_than_was_asked_for_is_refused(embed: Embed, lm: FakeLM) -> None:
    """unit: some models ignore the option; and batches must not differ."""
    with pytest.raises(LMProviderError, match="2 numbers where dimensions=5"):
        embed(lm, ["a"], dimensions=5)
    uneven = FakeLM(embeddings=lambda text: [1.0] * len(text))
    with uneven, pytest.raises(LMProviderError, match="vectors of 1 and of 2 numbers"):
        embed(uneven, ["a", "bb"], batch_size=1)


def test_a_reply_of_too_many_numbers_says_what_to_do(embed: Embed) -> None:
    """security: it is not read; base64 of the same is."""
    width = 520_000
    with FakeLM(embeddings=lambda text: [0.0] * width, retries=0) as lm:
        with pytest.raises(LMProviderError, match="batch_size"):
            embed(lm, ["a", "b"])
        assert embed(lm, ["a", "b"], encoding_format="base64").shape == (2, width)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a", 3], "Text 2 is a int"),
        (["a", None], "Text 2 is a NoneType"),
        (["a", b"b"], "Text 2 is a bytes"),
        (["a", ["b"]], "Text 2 is a list"),
        (["a", ""], "Text 2 is empty"),
        ("", "Text 1 is empty"),
        (["\ud800"], "surrogate"),
        (b"abc", "not one bytes"),
        ({"a": 1}, "not one dict"),
        (3, "not one int"),
        (None, "not one NoneType"),
    ],
)
def test_what_has_no_embedding_is_refused_before_it_is_asked(texts: Any, words: str, embed: Embed, lm: FakeLM) -> None:
    """unit: also where an earlier batch would have been fine."""
    with pytest.raises(InvalidInput, match=words):
        embed(lm, texts, batch_size=1)
    assert lm.requests == []


def test_too_many_texts_are_refused(monkeypatch: pytest.MonkeyPatch, embed: Embed, lm: FakeLM) -> None:
    """unit: an endless iterator too."""
    monkeypatch.setattr("dspex.retrieval.vectors.TEXTS_MOST", 3)
    with pytest.raises(InvalidInput, match="at most 3 texts"):
        embed(lm, iter(lambda: "a", "b"))
    assert lm.requests == [] and len(embed(lm, ["a", "b", "c"])) == 3


@pytest.mark.parametrize(
    ("options", "field"),
    [({"batch_size": value}, "batch_size") for value in (0, -1, 2049, 1.5, True, "3")]
    + [({"dimensions": value}, "dimensions") for value in (0, -1, 1.5, True, "3")]
    + [({"encoding_format": value}, "encoding_format") for value in ("int8", 3)]
    + [({"timeout": value}, "timeout") for value in (0, -1, "3", True)]
    + [({"extra_body": value}, "extra_body") for value in ([], "x", {"model": "m"}, {"input": []}, {"stream": True})],
)
def test_an_option_that_cannot_be_is_named(options: Any, field: str, embed: Embed, lm: FakeLM) -> None:
    """unit: before anything is asked."""
    with pytest.raises(InvalidInput) as refused:
        embed(lm, ["a"], **options)
    assert (refused.value.field, lm.requests) == (field, [])


def test_models_that_have_no_embeddings_are_refused(monkeypatch: pytest.MonkeyPatch, embed: Embed) -> None:
    """unit: another format, options that would be lost, and a fallback to another model's space."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    for given in ("anthropic/claude-sonnet-4", "local/smollm2", dspex.LM("openai/e", direct=True, api_key="k")):
        with pytest.raises(LMUnsupportedFeatureError, match="no embeddings in OpenAI's format"):
            embed(given, ["a"])
    with pytest.raises(LMUnsupportedFeatureError, match="no temperature"):
        embed(dspex.LM("openai/e", api_key="k", temperature=0.5), ["a"])
    with pytest.raises(LMConfigurationError, match="cannot be compared"):
        embed(dspex.LM("openai/e", api_key="k", fallbacks=dspex.LM("openai/f", api_key="k")), ["a"])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(LMNotConfiguredError):
        embed("openai/text-embedding-3-small", ["a"])


@pytest.mark.usefixtures("short_pauses")
def test_the_same_model_elsewhere_is_asked_in_its_place(embed: Embed) -> None:
    """unit: a fallback."""
    first = FakeLM(embeddings=lambda text: FakeReply(status=503), model="openai/e5", retries=0)
    with first, FakeLM(embeddings=lengths, model="hosted_vllm/e5") as second:
        assert embed(first.replace(fallbacks=second.lm), ["abc"]).tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize("given", [None, 3, ["openai/e"], object, str])
def test_what_is_no_embedder_is_refused(given: Any, embed: Embed) -> None:
    """unit"""
    with pytest.raises(SettingsError, match="An embedder is a model"):
        embed(given, ["a"])
    with pytest.raises(UnknownName):
        embed("nonesuch/e", ["a"])
    with pytest.raises(UnknownName):
        embed("no-such-name", ["a"])


def test_a_configured_lm_is_found_by_name_and_by_model(embed: Embed, lm: FakeLM) -> None:
    """unit: with its endpoint and key."""
    with dspex.context(lms={"embedder": lm.replace(model="openai/e5")}):
        for given in ("embedder", "openai/e5", lm, lm.lm):
            assert embed(given, ["abc"], cache=False).tolist() == [[3.0, 1.0]]
    assert [request.body["model"] for request in lm.requests] == ["e5", "e5", "fake", "fake"]


def test_a_function_is_an_embedder(embed: Embed) -> None:
    """unit: in batches; what it gives is checked as an endpoint's answer is."""
    batches: list[list[str]] = []

    def function(texts: list[str]) -> Any:
        batches.append(texts)
        return np.array([[len(text), 2.0] for text in texts], dtype=np.float64)

    assert embed(function, ["a", "bb", "ccc"], batch_size=2).tolist() == [[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]]
    assert batches == [["a", "bb"], ["ccc"]]
    for given, words in (
        ([[1.0]], "1 vectors for 2 texts"),
        (None, "a NoneType in place of vectors"),
        ([[1.0], [1.0, 2.0]], "2 numbers, not of 1"),
        ([[1.0], [float("inf")]], "vector 2 is not finite"),
        ([[1.0], "x"], "vector 2 is no list"),
        ([1.0, 2.0], "vector 1 is no list"),
        ([[1.0], []], "vector 2 has 0 numbers"),
        ([[0.0] * 70_000] * 2, "vector 1 has 70,000 numbers"),
    ):
        with pytest.raises(InvalidInput, match=words):
            embed(lambda texts, given=given: given, ["a", "b"])
    with pytest.raises(InvalidInput, match="no dimensions"):
        embed(function, ["a"], dimensions=2)


def test_an_asynchronous_function_is_awaited() -> None:
    """unit: on the caller's loop; one that blocks is called beside it."""

    async def function(texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return [[float(len(text))] for text in texts]

    async def both() -> tuple[Any, Any]:
        threads: list[int] = []

        def blocking(texts: list[str]) -> list[list[float]]:
            threads.append(threading.get_ident())
            return [[1.0]]

        found = await dspex.aembed(function, ["abc"]), await dspex.aembed(blocking, ["abc"])
        assert threads != [threading.get_ident()]
        return found

    first, second = asyncio.run(both())
    assert (first.tolist(), second.tolist()) == ([[3.0]], [[1.0]])
    with pytest.raises(InvalidInput, match="awaited form"):
        dspex.embed(function, ["abc"])


def test_calls_from_many_threads_share_one_request(lm: FakeLM) -> None:
    """unit: single flight holds for embeddings too."""
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(dspex.embed(lm, ["abc"]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(lm.requests) == 1
