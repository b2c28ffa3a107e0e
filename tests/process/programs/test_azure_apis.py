"""Process: Azure's APIs beside chat, asked by the host and by real workers at the same addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import LMUnsupportedFeatureError
from tests.support.lm.cloud_endpoint import TEXT, CloudEndpoint, Received
from tests.support.lm.hostile_bodies import whole_answer

KEY = "canary-key-4242424242"
OWN = "tests.support.programs.own_lms"
V1 = {"resource": "/openai/v1", "v1": "/openai/v1/"}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudEndpoint]:
    for name in ("AZURE_API_BASE", "AZURE_BASE_URL", "AZURE_OPENAI_ENDPOINT", "AZURE_API_VERSION", "AZURE_AD_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    made = CloudEndpoint()
    yield made
    made.close()


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        running.wait_ready()
        yield running


@pytest.mark.parametrize("path", V1.values(), ids=V1)
@pytest.mark.parametrize("options", [{}, {"reasoning_effort": "low"}, {"max_tokens": 20000}])
def test_responses_of_azures_v1_are_asked_alike(
    path: str, options: dict[str, Any], endpoint: CloudEndpoint, sup: dspex.Supervisor
) -> None:
    """process: the worker's request is DSPy's own, and the host sends the same bytes to the same place."""
    lm = dspex.LM(
        "azure/gpt-5", model_type="responses", api_base=endpoint.url + path, api_key=KEY, cache=False, **options
    )
    for route in ("native", "python"):
        endpoint.answers.append((200, whole_answer("responses", TEXT)))
        out = dspex.predict("question -> answer", {"question": "x"}, lm=lm, implementation=route, supervisor=sup)
        assert out.answer == "Paris"
    here, there = endpoint.taken()
    assert here.path == there.path == "/openai/v1/responses" and here.body == there.body
    assert here.headers["api-key"] == there.headers["api-key"] == KEY


@pytest.mark.parametrize("version", ["2024-10-21", "2025-02-01-preview"])
def test_responses_of_a_deployment_are_refused(version: str, endpoint: CloudEndpoint) -> None:
    """unit: before anything is asked."""
    with pytest.raises(LMUnsupportedFeatureError, match="v1 API only"):
        dspex.LM("azure/d", model_type="responses", api_base=endpoint.url, api_version=version, api_key=KEY)


ADDRESSES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "deployment": (
        "azure/d",
        "",
        {"api_version": "2024-10-21"},
        "/openai/deployments/d/embeddings?api-version=2024-10-21",
    ),
    "portal": (
        "azure/d",
        "/openai/deployments/other?api-version=2023-05-15",
        {},
        "/openai/deployments/other/embeddings?api-version=2023-05-15",
    ),
    "v1": ("azure/d", "/openai/v1", {}, "/openai/v1/embeddings"),
    "query": ("openai/d", "/v1?tenant=a%20b", {}, "/v1/embeddings?tenant=a%20b"),
}


def _vectors(asked: Received) -> dict[str, Any]:
    data = [{"index": at, "embedding": [1.0, 2.0]} for at in range(len(asked.data["input"]))]
    return {"data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}


@pytest.mark.parametrize("name", ADDRESSES)
def test_embeddings_go_where_the_deployment_is(name: str, endpoint: CloudEndpoint, sup: dspex.Supervisor) -> None:
    """process: `dspex.embed` here, and `dspy.Embedder` of user code in a worker."""
    model, path, options, wanted = ADDRESSES[name]
    lm = dspex.LM(model, api_base=endpoint.url + path, api_key=KEY, cache=False, **options)
    endpoint.answers += [(200, _vectors)] * 3
    assert [list(vector) for vector in dspex.embed(lm, ["a"])] == [[1.0, 2.0]]
    program = dspex.module(f"{OWN}:Embedding", model=model, caching=False, lm=lm, supervisor=sup)
    assert program(texts=["a"])["vectors"] == [[1.0, 2.0]]
    taken = endpoint.taken()
    credential = "authorization" if model.startswith("openai") else "api-key"
    assert {asked.path for asked in taken} == {wanted} and len(taken) > 1
    assert all(KEY in asked.headers[credential] for asked in taken)
