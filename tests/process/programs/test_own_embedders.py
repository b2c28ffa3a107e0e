"""Process: the embedding models that user code asks in workers go through the host, as its language models do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import LMAuthError, LMConfigurationError, LMProviderError, LMUnsupportedFeatureError
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
