"""Security: what one reply of an endpoint costs the process that reads it."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex import LM
from dspex.errors import LMConfigurationError, LMError, LMProviderError, LMUnexpectedError
from dspex.lm import response_check, retries
from dspex.lm.dialects.event_splitter import EventSplitter
from dspex.lm.dialects.json_body import json_in
from dspex.lm.http import async_client
from dspex.lm.http.body_limit import BODY_LIMIT, BODY_LIMIT_SETTING, body_limit
from dspex.lm.http.http_message import ResponseParser
from dspex.lm.lm_client import LMClient
from dspex.lm.reading_cost import COST_MOST
from dspex.lm.redaction import redactor_of
from tests.support.lm.peer import Peer, http
from tests.support.lm.requests import ASK, PLAIN

MIB = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\n"
ANSWER = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}]}


@pytest.fixture
def peers() -> Iterator[Callable[..., LM]]:
    made: list[Peer] = []

    def make(reply: bytes, **options: Any) -> LM:
        made.append(Peer([reply]))
        return LM("openai/m", api_base=made[-1].url.removesuffix("/x"), api_key="sk-0123456789", retries=0, **options)

    yield make
    for one in made:
        one.close()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def set_to(text: str) -> None:
        monkeypatch.setenv(BODY_LIMIT_SETTING, text)
        body_limit.cache_clear()

    yield set_to
    monkeypatch.delenv(BODY_LIMIT_SETTING, raising=False)
    body_limit.cache_clear()


def _fed(*data: bytes) -> ResponseParser:
    parser = ResponseParser()
    for part in data:
        parser.feed(part)
    return parser


@pytest.mark.parametrize("length", [str(BODY_LIMIT + 1), "9" * 4000, "-1", "+5", "0x10", "1_0", "\u0663", " "])
def test_a_length_over_the_limit_or_none_is_refused_before_the_body(length: str) -> None:
    """unit"""
    with pytest.raises(LMUnexpectedError, match=BODY_LIMIT_SETTING if length != " " else ".*"):
        _fed(HEAD + f"content-length: {length}\r\n\r\n".encode())
        raise LMUnexpectedError("a length of blanks is none, and the end is the connection's")


@pytest.mark.parametrize(
    "size", [b"%x" % (BODY_LIMIT + 1), b"f" * 16, b"f" * 17, b"0x10", b"+5", b"-1", b"", b" ", b"1_0"]
)
def test_a_chunks_size_over_the_limit_or_none_is_refused(size: bytes) -> None:
    """unit"""
    with pytest.raises(LMUnexpectedError):
        _fed(HEAD + b"transfer-encoding: chunked\r\n\r\n" + size + b"\r\n")


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_body_without_a_length_ends_at_the_limit(framing: str, limit: Callable[[str], None]) -> None:
    """unit: endless chunks, endless bytes; the setting decides."""
    limit("1")
    parser = _fed(HEAD + (b"transfer-encoding: chunked\r\n\r\n" if framing == "chunked" else b"\r\n"))
    with pytest.raises(LMUnexpectedError, match="1,048,576"):
        for _ in range(20):
            parser.feed(b"10000\r\n" + bytes(65_536) + b"\r\n" if framing == "chunked" else bytes(65_536))


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "x", "99999999999999", "5000"])
def test_a_limit_that_cannot_be_is_refused(given: str, limit: Callable[[str], None]) -> None:
    """unit"""
    limit(given)
    with pytest.raises(LMConfigurationError, match=BODY_LIMIT_SETTING):
        body_limit()


@pytest.mark.parametrize("step", [1, 2, 7])
def test_tiny_chunks_take_the_memory_of_their_bytes(step: int) -> None:
    """unit: a list of a million parts takes fifty times as much."""
    chunk = b"%x\r\n%b\r\n" % (step, b"x" * step)
    data = chunk * (10_000 // len(chunk))
    parser = _fed(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    tracemalloc.start()
    for _ in range(100):
        parser.feed(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    body = parser.take()
    assert body == b"x" * len(body) and len(body) == 100 * (10_000 // len(chunk)) * step
    assert peak < 4 * len(body) + 200_000


@pytest.mark.parametrize("part", ["{},", "[],", '{"a":{"b":1}},', "[[[]]],"])
@pytest.mark.parametrize("way", list(PLAIN))
def test_a_mass_of_values_is_not_read(part: str, way: str, peers: Callable[..., LM], client: LMClient) -> None:
    """collaboration: also not for the usage that a refused reply reports."""
    many = (part * (2 * COST_MOST // 10 // part.count("{" if "{" in part else "["))).rstrip(",")
    body = f'{json.dumps(ANSWER)[:-1]},"usage":{{"prompt_tokens":1}},"x":[{many}]}}'.encode()
    read: list[int] = []
    plain = json.loads

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            response_check.json, "loads", lambda text, **more: (read.append(len(text)), plain(text, **more))[1]
        )
        with pytest.raises(LMProviderError, match="values"):
            PLAIN[way](client, peers(http(body)))
    assert not [size for size in read if size > 100_000]


def test_a_mass_of_values_in_one_event_is_not_read(peers: Callable[..., LM], client: LMClient) -> None:
    """collaboration: an event of a megabyte held up the loop for as long as a whole reply might."""
    event = json.dumps(ANSWER)[:-1] + ',"x":[' + "[]," * 150_000 + "0]}"
    lm = peers(http(f"data: {event}\n\n".encode(), "200 OK", "content-type: text/event-stream"))
    with pytest.raises(LMError, match="objects and lists"):
        list(client.stream(lm, ASK))


def test_logprobs_that_were_asked_for_are_read(peers: Callable[..., LM], client: LMClient) -> None:
    """collaboration: an object for each token and alternative; an endpoint that was not asked cannot send as many."""
    token = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1.0}] * 5}
    answer = {"choices": [{**ANSWER["choices"][0], "logprobs": {"content": [token] * 20_000}}]}
    body = json.dumps(answer).encode()
    with pytest.raises(LMProviderError, match="values"):
        client.complete(peers(http(body)), ASK)
    assert client.complete(peers(http(body), logprobs=True), ASK).text == "fine"


def test_long_replies_are_read_beside_the_loop(peers: Callable[..., LM], client: LMClient) -> None:
    """collaboration: a short one on the loop's thread, a long one on another."""
    threads: list[int] = []
    plain = retries._judged

    def noting(*given: Any) -> Any:
        threads.append(threading.get_ident())
        return plain(*given)

    async def asked(body: bytes) -> str:
        answer = await client.acomplete(peers(http(body)), ASK)
        await client.aclose()
        return str(answer.text)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retries, "_judged", noting)
        for size, is_beside in ((10, False), (retries.LOOP_BYTES_MOST * 2, True)):
            body = json.dumps({**ANSWER, "pad": "x" * size}).encode()
            assert asyncio.run(asked(body)) == "fine"
            assert (threads.pop() != threading.get_ident()) is is_beside


def test_a_key_is_found_at_every_place_of_a_long_body() -> None:
    """unit: it is searched in pieces, and a secret may lie on their edge, escaped or not."""
    key = "sk-0123456789abcdef"
    escaped = "".join(f"\\u{ord(c):04x}" for c in key).encode()
    for form in (key.encode(), escaped, key.encode().hex().encode(), key.encode("utf-16-le")):
        for at in (0, MIB - len(form), MIB - 5, MIB - 1, MIB, MIB + 1, 2 * MIB - 3):
            body = b"a" * at + form + b"b" * (3 * MIB - at)
            shown = redactor_of((key,)).whole(body)
            assert form not in shown and shown.startswith(b"a" * at), (form[:10], at)


def test_nearly_utf_8_is_not_searched_for_another_encoding() -> None:
    """unit: a megabyte of half characters took Python's reader 100 ms; a short body may be UTF-16."""
    assert json_in('{"a": 1}'.encode("utf-16")) == {"a": 1}
    assert json_in(b'{"a": "' + "\ud83d".encode("utf-8", "surrogatepass") * 50_000 + b'"}') is None
    assert json_in(('{"a": "' + "ä" * 100_000 + '"}').encode()) == {"a": "ä" * 100_000}


def test_blank_lines_are_no_events() -> None:
    """unit: a megabyte of them was half a million; and nothing else changes."""
    assert EventSplitter().feed(b"\n" * 1_000_000) == [] and EventSplitter().feed(b"\r" * 1_000_000) == []
    events = EventSplitter().feed(b"\n\n\r\r\n\ndata: 1\n\n\n\n\r\ndata: 2\n\n")
    assert [event.strip() for event in events] == [b"data: 1", b"data: 2"]


def test_a_stream_is_read_in_slices(peers: Callable[..., LM], client: LMClient) -> None:
    """collaboration: others on the loop run between two slices of what arrived at once."""
    event = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    body = event * 4000 + b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    turns = 0

    async def asked() -> int:
        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(turn())
        lm = peers(http(body, "200 OK", "content-type: text/event-stream"))
        text = "".join([item async for item in client.astream(lm, ASK) if isinstance(item, str)])
        beside.cancel()
        await client.aclose()
        return len(text)

    assert asyncio.run(asked()) == 4000
    assert turns > len(body) // async_client.SLICE


def test_an_anthropic_message_without_content_is_no_answer(peers: Callable[..., LM], client: LMClient) -> None:
    """collaboration: a worker's DSPy cannot read it, and it would have been kept for a day."""
    lm = peers(http(json.dumps({"type": "message", "role": "assistant", "model": "m"}).encode()))
    lm = LM("anthropic/m", api_base=lm.api_base, api_key="k", retries=0, cache=True)
    with pytest.raises(LMError):
        client.complete(lm, ASK)
    assert len(client.cache) == 0


def test_what_unpacks_to_more_than_the_limit_is_refused(limit: Callable[[str], None]) -> None:
    """unit: a body of 20 KB that stands for 20 MB; what it unpacks to counts."""
    packed = gzip.compress(bytes(1_000_000), 1) * 20
    head = HEAD + f"content-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
    assert len(packed) < MIB
    limit("1")
    with pytest.raises(LMUnexpectedError):
        _fed(head, packed)


def test_the_limit_is_the_documented_one() -> None:
    """unit"""
    assert BODY_LIMIT == 16 * MIB
