"""Collaboration: a worker's request goes to its LM's own model and path alone, and is counted by what came back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex.errors import BudgetExceeded, LMConfigurationError, LMError, LMRateLimitError
from dspex.lm.forwarding import Origin
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.lm.usage import Account
from dspex.testing import FakeLM
from tests.support.lm.peer import Peer, http
from tests.support.lm.requests import ASK, asked_by_worker, forwarded

Fake = Callable[..., FakeLM]
STREAMED = b'{"model":"fake","messages":[],"stream":true,"stream_options":{"include_usage":true}}'
WHOLE = b'{"model":"fake","messages":[]}'


@pytest.fixture
def peers() -> Iterator[Callable[..., str]]:
    """The base URL of an endpoint that sends these replies, one per connection."""
    made: list[Peer] = []

    def make(*replies: bytes) -> str:
        made.append(Peer(*([reply] for reply in replies)))
        return made[-1].url.removesuffix("/x")

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("said", [True, False, None])
@pytest.mark.parametrize("body", [STREAMED, WHOLE])
def test_tokens_are_counted_whatever_the_worker_says_of_its_request(
    body: bytes, said: bool | None, fake: Fake, client: LMClient
) -> None:
    """collaboration: a stream that is called a whole answer, and the other way round; a budget ends both."""
    lm = fake("some words of an answer", cache=False)
    client.register(lm)
    with Account("worker", budget_tokens=1) as account:
        parts = list(client.forward(forwarded(lm, body=body, stream=said), origin=Origin((account,))))
        assert len(parts) > 1 and account.tokens > 0
        with pytest.raises(BudgetExceeded):
            list(client.forward(forwarded(lm, body=body, stream=said), origin=Origin((account,))))
    assert len(lm.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"model": "dear"},
        {"model": ""},
        {"model": None},
        {"model": ["fake"]},
        {},
        {"model": "fake", "Model": "dear"},
        {"MODEL": "fake"},
        {"model": "fake", "models": ["dear"]},
    ],
)
@pytest.mark.parametrize("model", ["openai/fake", "anthropic/fake"])
def test_request_for_another_model_is_refused(model: str, body: dict[str, Any], fake: Fake, client: LMClient) -> None:
    """collaboration: also where the server might read another member than we do; nothing is sent."""
    lm = fake("x", model=model)
    client.register(lm)
    with pytest.raises(LMConfigurationError):
        list(client.forward(asked_by_worker(lm, body=json.dumps({"messages": [], **body}).encode())))
    assert not lm.requests


@pytest.mark.parametrize("body", [b'{"model":"fake","model":"dear"}', b"[]", b"", b"{", b'"fake"', b"\xff"])
def test_request_that_is_no_plain_object_is_refused(body: bytes, fake: Fake, client: LMClient) -> None:
    """collaboration: of a member that is named twice, the server might take the other."""
    lm = fake("x")
    client.register(lm)
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(lm, body=body)))
    assert not lm.requests


@pytest.mark.parametrize(
    "member",
    [
        {"background": True},
        {"previous_response_id": "resp_of_another"},
        {"conversation": "conv_of_another"},
        {"Background": True},
    ],
)
def test_answers_that_come_later_or_go_on_with_others_are_not_asked_for(
    member: dict[str, Any], peers: Callable[..., str], client: LMClient
) -> None:
    """collaboration: OpenAI would work unseen and uncounted, or from what another request of the key's was told."""
    lm = LM("openai/fake", model_type="responses", api_base=peers(http(b"{}")), api_key="canary-42424242", retries=0)
    client.register(lm)
    body = json.dumps({"model": "fake", "input": [], **member}).encode()
    with pytest.raises(LMConfigurationError, match="another"):
        list(client.forward(forwarded(lm, url=f"{lm.api_base}/responses", body=body)))


MASSES: dict[str, bytes] = {
    "objects": b'{"model":"fake","messages":[' + b"{}," * 1_000_000 + b"{}]}",
    "lists": b'{"model":"fake","messages":' + b"[" * 300_000 + b"]" * 300_000 + b"}",
    "numbers": b'{"model":"fake","messages":[' + b"1," * 1_000_000 + b"1]}",
    "members": b'{"model":"fake",' + b",".join(b'"a%d":1' % number for number in range(300_000)) + b"}",
    "texts": b'{"model":"fake","messages":[' + b'"",' * 1_000_000 + b'""]}',
    "half surrogates": b'{"model":"fake","messages":["' + b"\xed\xa0\xbd" * 1_000_000 + b'"]}',
}


@pytest.mark.parametrize("body", MASSES.values(), ids=MASSES)
def test_requests_that_are_long_to_read_are_not_read(
    body: bytes, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: Python's reader lets no other thread run: 16 MB of a worker's took a second and 200 MB."""
    lm = LM("openai/fake", api_base="http://127.0.0.1:9/v1", api_key="canary-42424242", retries=0)
    client.register(lm)
    monkeypatch.setattr("dspex.lm.asked_request.json", _Unread())
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(lm, body=body)))


class _Unread:
    """Stands for Python's reader of JSON, and takes only what is quick: text, and little of it."""

    dumps = staticmethod(json.dumps)

    @staticmethod
    def loads(text: str, **options: Any) -> Any:
        assert isinstance(text, str) and len(text) < 1000
        return json.loads(text, **options)


@pytest.mark.parametrize(
    "text", ["[{,:" * 500_000, '\\"' * 500_000, '{"a": ["b\\\\"]}' * 100_000], ids=["marks", "quotes", "JSON"]
)
def test_long_texts_are_no_masses_of_values(text: str, fake: Fake, client: LMClient) -> None:
    """collaboration: brackets, commas and quotes of a prompt count for nothing."""
    lm = fake("x", cache=False)
    client.register(lm)
    body = json.dumps({"model": "fake", "messages": [{"role": "user", "content": text}]}).encode()
    assert len(body) > 1_000_000
    list(client.forward(forwarded(lm, body=body)))
    assert lm.requests[0].messages[0]["content"] == text


@pytest.mark.parametrize("route", ["complete", "acomplete", "stream", "forward"])
def test_model_is_the_records_and_not_a_calls(route: str, fake: Fake, client: LMClient) -> None:
    """collaboration: natively a call's config may not name one."""
    lm = fake("x")
    client.register(lm)
    config = {"model": "dear"}
    with pytest.raises(LMConfigurationError, match="model"):
        if route == "complete":
            client.complete(lm, ASK, config=config)
        elif route == "acomplete":
            asyncio.run(client.acomplete(lm, ASK, config=config))
        elif route == "stream":
            list(client.stream(lm, ASK, config=config))
        else:
            list(client.forward(forwarded(lm, body=b'{"model":"dear","messages":[]}')))
    assert not lm.requests


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "post", "POST /v1/files HTTP/1.1\r\nx: y"])
@pytest.mark.parametrize("path", ["/chat/completions", "/files/x"])
def test_only_completions_are_asked_for(method: str, path: str, fake: Fake, client: LMClient) -> None:
    """collaboration: the key opens more doors than a worker may use."""
    lm = fake("x")
    client.register(lm)
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(lm, method=method, url=lm.api_base + path)))
    assert not lm.requests


@pytest.mark.parametrize(
    "path",
    [
        "/files",
        "/chat/completions/..;/files",
        "/chat%2fcompletions",
        "/%252e%252e/x",
        "/chat/completions?key=1",
        "/chat/",
    ],
)
def test_only_the_dialects_own_path_is_asked(path: str, fake: Fake, client: LMClient) -> None:
    """collaboration: whatever an encoding may mean to a server."""
    lm = fake("x")
    client.register(lm)
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(lm, url=lm.api_base + path)))
    assert not lm.requests


@pytest.mark.parametrize("name", ["authorization ", "x: y", "authorization:", "", "x\ty", "a\r\nb", "\u00e9"])
def test_odd_header_names_are_refused(name: str, fake: Fake, client: LMClient) -> None:
    """collaboration: one that a server trims to a name that is ours to set, say."""
    lm = fake("x")
    client.register(lm)
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(lm, headers=[[name, "Bearer theirs"]])))
    assert not lm.requests


@pytest.mark.parametrize("route", ["native", "worker"])
def test_tenants_do_not_share_answers(route: str, fake: Fake, client: LMClient) -> None:
    """collaboration: every header that reaches the provider is part of the cache's key, from the record or a worker."""
    lm = fake(["for alice", "for bob", "for nobody"], cache=True)
    tenants = [{"x-tenant": "alice"}, {"x-tenant": "bob"}, {}, {"x-tenant": "alice"}]
    found = []
    for headers in tenants:
        one = lm.replace(headers=headers, api_key=lm.api_key)
        client.register(one)
        if route == "native":
            found.append(client.complete(one, ASK).text)
        else:
            client.register(lm)
            plain = [["Content-Type", "application/json"]]
            request = forwarded(lm, headers=plain + [[name.title(), value] for name, value in headers.items()])
            parts = [part for part in client.forward(request) if isinstance(part, bytes)]
            found.append(json.loads(b"".join(parts))["choices"][0]["message"]["content"])
    assert found == ["for alice", "for bob", "for nobody", "for alice"]
    assert len(lm.requests) == 3


GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "fine"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 5, "totalTokenCount": 12},
}


def _ask_gemini(client: LMClient, lm: LM, verb: str) -> bytes:
    client.register(lm)
    request = forwarded(lm, url=f"{lm.api_base}/models/g:{verb}", body=b'{"contents": []}')
    return b"".join(part for part in client.forward(request) if isinstance(part, bytes))


@pytest.mark.parametrize("verb", ["generateContent", "streamGenerateContent?alt=sse"])
def test_geminis_answers_are_judged_and_counted(verb: str, peers: Callable[..., str], client: LMClient) -> None:
    """collaboration: though only workers speak its dialect."""
    data = json.dumps(GEMINI).encode()
    refusal = json.dumps([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow"}}]).encode()
    if "stream" in verb:
        data, refusal = b"data: " + data + b"\n\n", b"data: " + refusal + b"\n\n"
    lm = LM(
        "gemini/g", api_base=peers(http(refusal), http(data), http(data[:-20])), api_key="canary-42424242", retries=0
    )
    with pytest.raises(LMRateLimitError):
        _ask_gemini(client, lm, verb)
    assert _ask_gemini(client, lm, verb) == data
    assert client.usage.total.stats()["total_tokens"] == 12
    assert _ask_gemini(client, lm, verb) == data  # kept
    with pytest.raises(LMError):
        _ask_gemini(client, lm.replace(cache=False, api_key="canary-42424242"), verb)


@pytest.mark.parametrize("path", ["/models/other:generateContent", "/models/g:countTokens", "/files", "/models/g"])
def test_geminis_model_is_the_records(path: str, client: LMClient) -> None:
    """collaboration: its URL names it; nothing is sent."""
    lm = LM("gemini/g", api_base="http://127.0.0.1:9/v1beta", api_key="canary-42424242")
    client.register(lm)
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(lm, url=lm.api_base + path, body=b'{"contents": []}')))
