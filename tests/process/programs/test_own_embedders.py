"""Process: the embedding models that user code asks in workers go through the host, as its language models do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import LMAuthError, LMConfigurationError, LMProviderError, LMUnsupportedFeatureError
from dspex.testing import FakeLM
from tests.support.lm.embedding_endpoint import EmbeddingEndpoint, embedding_endpoint

OWN = "tests.support.programs.own_lms"
KEY = "sk-of-the-embedder"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[EmbeddingEndpoint]:
    with embedding_endpoint() as running:
        yield running


@pytest.fixture(scope="module")
def sup(endpoint: EmbeddingEndpoint) -> Iterator[dspex.Supervisor]:
    lm = dspex.LM("openai/small-embedder", api_base=endpoint.url, api_key=KEY, price=(1.0, 0.0))
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)], lms={"embedder": lm}) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(endpoint: EmbeddingEndpoint) -> None:
    endpoint.requests.clear()
    endpoint.instead = None


def test_an_embedder_asks_through_the_host(sup: dspex.Supervisor, endpoint: EmbeddingEndpoint) -> None:
    """process: in batches and in order, with the host's key; counted and priced; the cache answers the second time."""
    program = dspex.module(f"{OWN}:Embedding", dimensions=2, supervisor=sup)
    with dspex.Account("test") as account:
        found = program(texts=["a", "bbb", "cc"])
    assert found == {"vectors": [[1.0, 1.0], [3.0, 1.0], [2.0, 1.0]], "one": [1.0, 1.0]}
    assert [(path, asked["input"]) for path, _, asked in endpoint.requests] == [
        ("/v1/embeddings", ["a", "bbb"]),
        ("/v1/embeddings", ["cc"]),
        ("/v1/embeddings", ["a"]),
    ]
    assert {headers["authorization"] for _, headers, _ in endpoint.requests} == {f"Bearer {KEY}"}
    assert {(asked["model"], asked["dimensions"]) for _, _, asked in endpoint.requests} == {("small-embedder", 2)}
    assert (account.requests, account.tokens, round(account.cost or 0.0, 9)) == (3, 7, 7e-6)
    assert program(texts=["a", "bbb", "cc"]) == found and len(endpoint.requests) == 3


@pytest.mark.parametrize("what", ["Embedding", "EmbeddingAwaited"])
@pytest.mark.parametrize("model", ["embedder", "openai/small-embedder", "given"])
def test_by_name_by_model_and_with_a_key_of_its_own(
    what: str, model: str, sup: dspex.Supervisor, endpoint: EmbeddingEndpoint
) -> None:
    """process"""
    own: dict[str, Any] = {"api_base": endpoint.url, "api_key": "sk-of-the-code"} if model == "given" else {}
    name = "openai/other-embedder" if own else model
    program = dspex.module(f"{OWN}:{what}", model=name, caching=False, supervisor=sup, **own)
    assert program(texts=["four"])["vectors"] == [[4.0, 1.0]]
    assert endpoint.requests[-1][1]["authorization"] == f"Bearer {own.get('api_key', KEY)}"


def test_dspys_own_index_retrieves(sup: dspex.Supervisor) -> None:
    """process"""
    assert dspex.module(f"{OWN}:Searching", supervisor=sup)(question="xxxx")["passages"] == ["aaaa"]


@pytest.mark.parametrize(
    ("instead", "kind"),
    [
        ((401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), LMAuthError),
        ((200, {"error": {"message": "no", "code": "invalid_api_key"}}), LMAuthError),
        ((200, {"object": "list"}), LMProviderError),
        ((200, {"object": "list", "data": []}), LMProviderError),
    ],
)
def test_what_goes_wrong_is_an_lms_error(
    instead: tuple[int, dict[str, Any]], kind: type[Exception], sup: dspex.Supervisor, endpoint: EmbeddingEndpoint
) -> None:
    """process: without the key that the endpoint quotes."""
    endpoint.instead = instead
    with pytest.raises(kind) as refused:
        dspex.module(f"{OWN}:Embedding", caching=False, supervisor=sup)(texts=["a"])
    assert KEY not in str(refused.value)


def test_what_the_host_cannot_carry_says_so(sup: dspex.Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: and what a pool of named models may not ask."""
    monkeypatch.setenv("GEMINI_API_KEY", "k-of-gemini")
    for model in ("gemini/text-embedding-004", "cohere/embed"):
        with pytest.raises(LMUnsupportedFeatureError, match="direct=True"):
            dspex.module(f"{OWN}:Embedding", model=model, supervisor=sup)(texts=["a"])
    strict = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, lms="named")])
    with strict, pytest.raises(LMConfigurationError, match='lms = "any"'):
        dspex.module(f"{OWN}:Embedding", supervisor=strict)(texts=["a"])


def test_both_sides_share_the_cache(sup: dspex.Supervisor, endpoint: EmbeddingEndpoint) -> None:
    """process: a worker sends the bytes that the host sends for the same texts, whatever their letters."""
    texts = ["Zürich – ☃", "b"]
    lm = sup.lms.by_name["embedder"]
    found = dspex.embed(lm, texts, dimensions=2)
    program = dspex.module(f"{OWN}:Embedding", dimensions=2, supervisor=sup)
    assert program(texts=texts)["vectors"] == found.tolist()
    assert [asked["input"] for _, _, asked in endpoint.requests] == [texts, texts[:1]]
    assert dspex.embed(lm, texts[0], dimensions=2).tolist() == found[0].tolist() and len(endpoint.requests) == 2


def test_base64_reaches_user_code_as_numbers(sup: dspex.Supervisor) -> None:
    """process"""
    with FakeLM(model="openai/other") as lm, dspex.context(lms={"other": lm.lm}):
        plain, coded = (
            dspex.module(f"{OWN}:Embedding", model="openai/other", supervisor=sup, **options)(texts=["one two", "two"])
            for options in ({}, {"encoding_format": "base64"})
        )
        assert plain == coded
        assert [request.body["encoding_format"] for request in lm.requests] == ["float", "float", "base64", "base64"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([{"embedding": [1.0]}], "1 vectors for 2 texts"),
        ([{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}], "of 1 and of 2 numbers"),
        ([{"embedding": [1.0]}, {"embedding": [float("nan")]}], "not finite"),
    ],
)
def test_other_vectors_than_were_asked_for_are_refused(
    data: Any, words: str, sup: dspex.Supervisor, endpoint: EmbeddingEndpoint
) -> None:
    """process: as for the host's own, and kept by no cache."""
    endpoint.instead = (200, {"data": data})
    for _ in range(2):
        with pytest.raises(LMProviderError, match=words):
            dspex.module(f"{OWN}:Embedding", supervisor=sup)(texts=[words, words])
    endpoint.instead = None
    assert dspex.module(f"{OWN}:Embedding", supervisor=sup)(texts=[words, words])["one"] == [float(len(words)), 1.0]


@pytest.mark.parametrize("kind", ["Embedder", "OwnEmbedder"])
def test_an_embedder_of_the_host_travels_without_its_key(
    kind: str, sup: dspex.Supervisor, endpoint: EmbeddingEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """security: in a live module and as an argument; it asks by the key that stays here, with its own options."""
    import dspy

    from tests.support.programs import own_lms

    key = "sk-of-the-hosts-own-object"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    make: Any = dspy.Embedder if kind == "Embedder" else own_lms.OwnEmbedder
    given = {"api_key": key, "api_base": endpoint.url, "headers": {"x-tenant": "secret-tenant"}, "dimensions": 2}
    embedder = make("openai/third-embedder", batch_size=1, caching=False, **given)
    for program in (
        dspex.module(own_lms.Holding(embedder), supervisor=sup),
        dspex.module(f"{OWN}:Holding", embedder=embedder, supervisor=sup),
    ):
        endpoint.requests.clear()
        out = program(texts=["a", "bb"])
        assert out["vectors"] == [[1.0, 1.0], [2.0, 1.0]] and out["kind"] == kind
        assert not any(secret in out["held"] for secret in (key, "secret-tenant", "sk-of-the-environment"))
        seen = {(headers["authorization"], headers["x-tenant"]) for _, headers, _ in endpoint.requests}
        assert seen == {(f"Bearer {key}", "secret-tenant")}
        assert [(asked["input"], asked["dimensions"]) for _, _, asked in endpoint.requests] == [(["a"], 2), (["bb"], 2)]
    assert dspex.embed(embedder, ["ccc"]).tolist() == [[3.0, 1.0]]
    assert endpoint.requests[-1][1]["authorization"] == f"Bearer {key}"


def test_a_hosts_embedder_of_a_function_is_taken(sup: dspex.Supervisor) -> None:
    """process: natively, with its options and batches; DSPy's own index over it is a retriever of rag."""
    import dspy

    def lengths(texts: list[str], more: float = 0.0) -> list[list[float]]:
        return [[len(text) + more, 1.0] for text in texts]

    embedder = dspy.Embedder(lengths, batch_size=2, more=1.0)
    assert dspex.embed(embedder, ["a", "bb", "ccc"]).tolist() == [[2.0, 1.0], [3.0, 1.0], [4.0, 1.0]]
    assert dspex.VectorIndex(["a", "aaaaaaaaaa"], embedder=embedder).search("aaaaaaaa", 1)[0]["text"] == "aaaaaaaaaa"
    with pytest.raises(LMUnsupportedFeatureError, match="api_version"):
        dspex.embed(dspy.Embedder("openai/e", api_key="k", api_version="1"), ["a"])
    search = dspy.retrievers.Embeddings(["aa", "a", "aaaa"], embedder, k=2)
    with FakeLM({"": {"answer": "x"}}) as lm:
        for route in ("native", "python"):
            program = dspex.rag(search, "question -> answer", lm=lm, supervisor=sup, implementation=route)
            assert len(program(question="aaaa").passages) == 2
    with pytest.raises(dspex.SettingsError, match="cannot be called with"):
        dspex.rag(lambda query: [query], "question -> answer")


def test_an_index_of_the_host_is_asked_from_a_worker(sup: dspex.Supervisor) -> None:
    """process: as a tool of a module's constructor; the documents and the key stay here."""
    with FakeLM() as lm:
        documents = [{"id": "fr", "text": "Paris is in France."}, {"id": "it", "text": "Rome is in Italy."}]
        vectors, words = dspex.VectorIndex(documents, embedder=lm), dspex.BM25Index(documents)
        for index in (vectors, words, dspex.HybridIndex(words, vectors), vectors.search):
            out = dspex.module(f"{OWN}:Looking", tools=[index], supervisor=sup)(question="Where is Paris?")
            assert out["passages"][0]["id"] == "fr"


def test_dspys_index_gives_scores_and_says_what_it_lacks(sup: dspex.Supervisor) -> None:
    """process: FAISS is not installed here."""
    out = dspex.module(f"{OWN}:Scoring", supervisor=sup)(question="xxxx")
    assert (out["passages"], [round(score, 3) for score in out["scores"]]) == (["aaaa", "aa"], [1.0, 0.976])
    assert "faiss-cpu" in out["faiss"]
