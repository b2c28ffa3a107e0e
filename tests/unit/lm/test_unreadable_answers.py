"""Collaboration: a reply that no answer can be made of is a typed error, once, and is not kept."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import LMConfigurationError, LMError, LMInvalidRequestError, LMRateLimitError, SettingsError
from dspex.lm.cache import Cache
from dspex.lm.dialects import anthropic, openai
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.peer import BODY, Peer, http
from tests.support.lm.requests import ASK, forwarded

KEY = "canary4242424242canary"
Ask = Callable[[LMClient, LM], str]


def chat(**members: Any) -> bytes:
    """A chat completion with other members."""
    return http(json.dumps({**json.loads(BODY), **members}).encode())


def events(*payloads: Any, end: bytes = b"") -> bytes:
    """A stream of these events, and its end."""
    body = b"".join(b"data: %s\n\n" % json.dumps(payload).encode() for payload in payloads) + end
    return http(body, "200 OK", "content-type: text/event-stream")


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    """One piece of a streamed chat completion."""
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


def _complete(client: LMClient, lm: LM) -> str:
    return client.complete(lm, ASK).text


def _acomplete(client: LMClient, lm: LM) -> str:
    async def ask() -> str:
        try:
            return (await client.acomplete(lm, ASK)).text
        finally:
            await client.aclose()

    return asyncio.run(ask())


def _stream(client: LMClient, lm: LM) -> str:
    return "".join(item for item in client.stream(lm, ASK) if isinstance(item, str))


def _astream(client: LMClient, lm: LM) -> str:
    async def read() -> str:
        try:
            return "".join([item async for item in client.astream(lm, ASK) if isinstance(item, str)])
        finally:
            await client.aclose()

    return asyncio.run(read())


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(*replies: bytes) -> Peer:
        made.append(Peer(*([reply] for reply in replies)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _lm(peer: Peer, **options: Any) -> LM:
    return LM("openai/m", api_base=peer.url.removesuffix("/x"), api_key=KEY, **{"retries": 0, **options})


@pytest.mark.parametrize("ask", [_complete, _acomplete])
@pytest.mark.parametrize(
    "bad",
    [
        http(b"<html>gateway</html>"),
        http(b"", "204 No Content"),
        chat(error={"message": "overloaded", "code": "server_error"}),
        chat(choices={"0": "no list"}),
        chat(choices=[{"message": {"content": None, "tool_calls": 5}}]),
        http(b"[" * 100_000),
    ],
    ids=["page", "nothing", "error", "shape", "calls", "depth"],
)
def test_reply_that_cannot_be_read_is_an_lm_error_and_not_kept(
    bad: bytes, ask: Ask, peer: Callable[..., Peer], client: LMClient
) -> None:
    """collaboration"""
    lm = _lm(peer(bad, http()))
    with pytest.raises(LMError):
        ask(client, lm)
    assert ask(client, lm) == "fine"


@pytest.mark.parametrize("ask", [_stream, _astream])
@pytest.mark.parametrize(
    "bad",
    [
        events(delta("cut")),
        events({"error": {"message": "overloaded"}}, end=b"data: [DONE]\n\n"),
        events({"choices": {"0": "no list"}}),
        events({"choices": [{"delta": {"tool_calls": [{"index": "first"}]}}]}),
    ],
    ids=["cut", "error", "shape", "index"],
)
def test_stream_that_cannot_be_read_is_an_lm_error_and_not_kept(
    bad: bytes, ask: Ask, peer: Callable[..., Peer], client: LMClient
) -> None:
    """collaboration"""
    lm = _lm(peer(bad, events(delta("fine", "stop"))))
    with pytest.raises(LMError):
        ask(client, lm)
    assert ask(client, lm) == "fine"


@pytest.mark.parametrize(
    ("bad", "good", "stream"),
    [
        (http(b"<html>gateway</html>"), http(), False),
        (events(delta("cut")), events(delta("fine", "stop")), True),
        (events({"error": {"message": "overloaded"}}), events(delta("fine", "stop")), True),
    ],
    ids=["page", "cut", "error"],
)
def test_worker_asks_anew_after_a_reply_that_it_cannot_read(
    bad: bytes, good: bytes, stream: bool, peer: Callable[..., Peer], client: LMClient
) -> None:
    """collaboration: it hears the error that the parent's own caller would, and the reply is not kept."""
    lm = _lm(peer(bad, good))
    client.register(lm)
    with pytest.raises(LMError):
        list(client.forward(forwarded(lm, stream=stream)))
    first, second = (list(client.forward(forwarded(lm, stream=stream))) for _ in range(2))
    assert [parts[0]["cached"] for parts in (first, second)] == [False, True]  # type: ignore[index]
    assert first[1:] == second[1:]


def test_unreadable_reply_is_taken_off_the_disk_too(peer: Callable[..., Peer], tmp_path: Path) -> None:
    """collaboration"""
    lm = _lm(peer(http(b"<html>gateway</html>"), http()))
    with LMClient(cache=Cache(path=tmp_path / "replies")) as client, pytest.raises(LMError):
        _complete(client, lm)
    with LMClient(cache=Cache(path=tmp_path / "replies")) as another:
        assert _complete(another, lm) == "fine"


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "3", "completion_tokens": "4", "total_tokens": "7"},
        {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": [7], "prompt_tokens_details": [1]},
        {"prompt_tokens": -3, "completion_tokens": float("nan"), "prompt_tokens_details": {"cached_tokens": "x"}},
        {"prompt_tokens": True, "completion_tokens": {}, "completion_tokens_details": "none"},
    ],
)
def test_counters_that_are_no_counts_are_left_out(
    usage: dict[str, Any], peer: Callable[..., Peer], client: LMClient
) -> None:
    """collaboration: the answer is there, and the books stay numbers."""
    lm = _lm(peer(chat(usage=usage)), price=(1, 1))
    assert _complete(client, lm) == "fine"
    stats = client.usage.total.stats()
    assert stats["requests"] == 1
    assert 0 <= stats["total_tokens"] <= 7
    assert 0 <= stats["cost_usd"] < 1


@pytest.mark.parametrize("dialect", [openai, anthropic])
def test_usage_of_any_json_shape_is_read(dialect: Any) -> None:
    """unit"""
    names = ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "input_tokens"]
    names += ["output_tokens", "cache_read_input_tokens", "completion_tokens_details", "output_tokens_details"]
    for odd in ("7", [1], {"cached_tokens": "x"}, True, None, 1e999, -1):
        found = dialect.usage(dict.fromkeys(names, odd))
        counts = [value for value in found.values() if value is not None]
        assert counts == [], (odd, found)


@pytest.mark.parametrize("pause", ["1e12", "86400", "9" * 300])
def test_pause_of_hours_is_a_refusal(pause: str, peer: Callable[..., Peer], client: LMClient) -> None:
    """collaboration: no caller without a deadline sleeps until tomorrow."""
    busy = http(b"{}", "429 Too Many Requests", f"retry-after: {pause}")
    with pytest.raises(LMRateLimitError) as caught:
        _complete(client, _lm(peer(busy, http()), retries=3))
    assert caught.value.retry_after == float(pause)


@pytest.mark.parametrize("padding", [440, 480, 495, 499])
def test_key_at_the_cut_of_a_long_message_is_not_shown(
    padding: int, peer: Callable[..., Peer], client: LMClient
) -> None:
    """collaboration: neither of the key, nor of a header that carries one, is half shown."""
    secret = "header5353535353header"
    text = f"{'x' * padding} {KEY} {secret}"
    refusals = [http(json.dumps({"error": {"message": text}}).encode(), "401 No"), http(text.encode(), "502 Bad")]
    lm = _lm(peer(*refusals), headers={"Ocp-Subscription-Key": secret})
    for _ in refusals:
        with pytest.raises(LMError) as caught:
            _complete(client, lm)
        assert "cana" not in str(caught.value)
        assert "head" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:abc/v1",
        "http://[::1/v1",
        f"http://{'a' * 70}.example/v1",
        "http://.example/v1",
        "http://127.0.0.1/v1/chat/completions?api-version=1",
        "http://127.0.0.1/v1/chat/completions/",
        "http://127.0.0.1/v1/messages",
        "http://127.0.0.1/v1#part",
    ],
)
def test_address_that_cannot_be_asked_is_refused_at_once(url: str) -> None:
    """unit"""
    with pytest.raises(LMConfigurationError):
        LM("openai/m", api_base=url, api_key=KEY)


@pytest.mark.parametrize("proxy", ["http://h:abc", "http://[::1", "socks4://h:1", "ftp://h:1", "http://h:99999"])
def test_proxy_that_cannot_be_used_is_refused_at_once(proxy: str) -> None:
    """unit"""
    with pytest.raises(LMConfigurationError):
        LM("openai/m", api_key=KEY, proxy=proxy)


@pytest.mark.parametrize("options", [{"headers": {"x": 5}}, {"headers": "abc"}, {"headers": [("x",)]}, {"proxy": 5}])
def test_settings_of_the_wrong_type_are_refused_by_name(options: dict[str, Any]) -> None:
    """unit"""
    with pytest.raises(SettingsError) as caught:
        LM("openai/m", api_key=KEY, **options)
    assert caught.value.key == next(iter(options))


@pytest.mark.parametrize("ask", [_complete, _acomplete])
def test_refusal_before_all_of_the_request_was_read_is_heard(
    ask: Ask, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: a peer that says 413 and closes while it is sent more than it takes is no broken connection."""
    refusal = http(b'{"error": {"message": "too large"}}', "413 Content Too Large", "connection: close")

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(refusal)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        lm = LM("openai/m", api_base=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", api_key=KEY, retries=0)
        monkeypatch.setitem(ASK[0], "content", "x" * 20_000_000)
        with pytest.raises(LMInvalidRequestError, match="too large"):
            ask(client, lm)
        thread.join()
