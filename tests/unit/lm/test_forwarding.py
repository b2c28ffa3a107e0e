"""Unit: requests that workers forward: whose key they get, what is shared with native calls, and how they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import (
    LMConfigurationError,
    LMInvalidRequestError,
    LMTimeoutError,
    UnknownName,
)
from dspex.lm import lm_client as lm_client
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.requests import ASK, forwarded

pytestmark = pytest.mark.usefixtures("short_pauses")

Fake = Callable[..., FakeLM]


async def collect(client: LMClient, request: dict[str, Any], **options: Any) -> tuple[dict[str, Any], bytes]:
    head, *parts = [item async for item in client.aforward(request, **options)]
    assert isinstance(head, dict)
    return head, b"".join(part for part in parts if isinstance(part, bytes))


def test_forwarded_request_gets_the_key_here(fake: Fake, client: LMClient) -> None:
    """collaboration: the worker's credentials are dropped, its other headers kept, the usage counted."""
    lm = fake(["hello"])
    client.register(lm)
    head, body = asyncio.run(collect(client, forwarded(lm)))
    assert (head["status"], head["cached"]) == (200, False)
    assert b'"content": "hello"' in body
    headers = lm.requests[0].headers
    assert headers["authorization"] == f"Bearer {lm.api_key}"
    assert headers["x-own"] == "kept"
    assert client.usage.total.requests == 1


def test_both_routes_share_the_cache(fake: Fake, client: LMClient) -> None:
    """collaboration: equal bytes, one request (DESIGN 3.5)."""
    lm = fake(["one"], cache=True)
    client.register(lm)
    client.complete(lm, ASK)
    plain = {"headers": [["Content-Type", "application/json"]], "body": lm.requests[0].raw}
    head, body = asyncio.run(collect(client, forwarded(lm, **plain)))
    assert head["cached"]
    assert b'"content": "one"' in body
    assert client.usage.total.requests == 1
    items = list(client.forward(forwarded(lm, **plain)))
    assert items[0] == head
    assert len(lm.requests) == 1


def test_candidates_of_one_call_are_kept_apart(fake: Fake, client: LMClient) -> None:
    """collaboration: n equal bodies are n answers."""
    lm = fake(["one", "two"], cache=True)
    client.register(lm)

    async def both() -> list[bytes]:
        return [(await collect(client, forwarded(lm, candidate=number)))[1] for number in (0, 1)]

    one, two = asyncio.run(both())
    assert one != two


def test_provider_refusal_is_classified_here(fake: Fake, client: LMClient) -> None:
    """collaboration: the worker raises DSPy's class of the same name; temporary ones were retried here."""
    lm = fake([FakeReply(status=500), FakeReply(status=422, error={"message": "odd"})])
    client.register(lm)
    with pytest.raises(LMInvalidRequestError, match="odd") as refused:
        asyncio.run(collect(client, forwarded(lm)))
    assert refused.value.status == 422
    assert len(lm.requests) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.example/v1/chat/completions",
        "{base}.evil.example/chat/completions",
        "{base}@evil.example/chat/completions",
        "{base}/../../admin",
        "{base}/%2e%2e/admin",
        "{base}/a\\..\\b",
        "{base}",
    ],
)
def test_key_is_not_sent_to_another_address(url: str, fake: Fake, client: LMClient) -> None:
    """collaboration: the URL must lie under the record's own."""
    lm = fake("x")
    client.register(lm)
    with pytest.raises(LMConfigurationError):
        asyncio.run(collect(client, forwarded(lm, url=url.format(base=lm.api_base))))
    assert lm.requests == []


def test_records_made_per_request_do_not_pile_up(client: LMClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: the oldest are forgotten, the one that was just registered never is."""
    monkeypatch.setattr(lm_client, "LMS_MOST", 5)
    for number in range(20):
        ref = client.register(LM("openai/m", api_key=f"key-{number}"))
        assert client._registered(ref).api_key == f"key-{number}"
    assert len(client._lms) == 5


def test_unregistered_lm_is_unknown(client: LMClient) -> None:
    """collaboration: a worker cannot invent an LM."""
    with pytest.raises(UnknownName):
        list(client.forward({"lm": "nope", "url": "http://127.0.0.1/v1", "body": b"{}"}))


def test_cancelled_forward_closes_its_connection(fake: Fake, client: LMClient) -> None:
    """collaboration: before the head, and in the middle of a stream (K1)."""
    lm = fake([FakeReply(hang=True), FakeReply("a b", chunks=["a", "b"], chunk_delay=60)])
    client.register(lm)

    async def run() -> None:
        task = asyncio.create_task(collect(client, forwarded(lm)))
        await asyncio.to_thread(lm.wait_for, lambda: len(lm.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(lm.wait_for, lambda: lm.hung_up == 1)
        request = forwarded(lm, stream=True, body=b'{"model":"fake","messages":[],"stream":true}')
        parts = client.aforward(request)
        assert (await anext(parts))["status"] == 200  # type: ignore[index,call-overload]
        await anext(parts)
        await parts.aclose()
        await asyncio.to_thread(lm.wait_for, lambda: lm.hung_up == 2)

    asyncio.run(run())
    assert len(client._services.single_flight) == 0


def test_forwarded_stream_is_metered(fake: Fake, client: LMClient) -> None:
    """collaboration: usage at the end of a stream counts."""
    lm = fake(["a b c"], cache=True)
    client.register(lm)
    body = b'{"model":"fake","messages":[],"stream":true,"stream_options":{"include_usage":true}}'
    _, raw = asyncio.run(collect(client, forwarded(lm, stream=True, body=body)))
    assert raw.endswith(b"data: [DONE]\n\n")
    assert client.usage.total.tokens > 0
    head, again = asyncio.run(collect(client, forwarded(lm, stream=True, body=body)))
    assert head["cached"]
    assert again == raw


def test_forward_deadline_is_kept(fake: Fake, client: LMClient) -> None:
    """collaboration: no answer is an error, not a response."""
    lm = fake([FakeReply(hang=True)], cycle=True)
    client.register(lm)
    with pytest.raises(LMTimeoutError):
        asyncio.run(collect(client, forwarded(lm), deadline=time.monotonic() + 0.1))
