"""Collaboration: streams against an endpoint that holds each piece back: nothing waits, and leaving closes at once."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from dspex.errors import LMAuthError, LMError, LMServerError, LMTimeoutError, LMTransportError
from dspex.lm.completion import Completion
from dspex.lm.dialects import openai
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.lm.usage import Account
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.held_endpoint import PATIENCE, HeldEndpoint, event
from tests.support.lm.peer import Peer, http
from tests.support.lm.requests import ASK, forwarded

Fake = Callable[..., FakeLM]
ROUTES = ("stream", "astream", "forward", "aforward")


@pytest.fixture
def endpoint() -> Iterator[HeldEndpoint]:
    held = HeldEndpoint()
    yield held
    held.close()


class Reader:
    """One stream on one of the four ways, read item by item from the test; texts only."""

    def __init__(self, client: LMClient, route: str, lm: LM, *, timeout: float = PATIENCE) -> None:
        client.register(lm)
        deadline = time.monotonic() + timeout
        request = forwarded(lm, stream=True, body=b'{"model":"m","messages":[],"stream":true}', cache=False)
        self._runner = asyncio.Runner() if route.startswith("a") else None
        begin: dict[str, Callable[[], Any]] = {
            "stream": lambda: client.stream(lm, ASK, deadline=deadline),
            "astream": lambda: client.astream(lm, ASK, deadline=deadline),
            "forward": lambda: client.forward(request, deadline=deadline),
            "aforward": lambda: client.aforward(request, deadline=deadline),
        }
        self.items: Any = begin[route]()
        self.client = client

    def next(self) -> str:
        """The next piece of text."""
        while True:
            item = next(self.items) if self._runner is None else self._runner.run(self._anext())
            if isinstance(item, bytes):
                return item.decode()
            if isinstance(item, str):
                return item

    def close(self) -> None:
        if self._runner is None:
            self.items.close()
        else:
            self._runner.run(self.items.aclose())

    def drop(self) -> None:
        """Forget the iterator without closing it, as a consumer that breaks out of its loop does."""
        self.items = None
        gc.collect()
        self.turn()

    def turn(self) -> None:
        """Let the event loop, if there is one, go round a few times."""
        if self._runner is not None:
            self._runner.run(self._turn())

    def end(self) -> None:
        if self._runner is not None:
            self._runner.run(self.client.aclose())
            self._runner.close()

    async def _anext(self) -> Any:
        return await anext(self.items)

    async def _turn(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


Read = Callable[..., Reader]


@pytest.fixture(params=ROUTES)
def read(request: pytest.FixtureRequest, client: LMClient) -> Iterator[Read]:
    """Begins a stream on each of the four ways."""
    made: list[Reader] = []

    def begin(lm: LM, **options: Any) -> Reader:
        made.append(Reader(client, request.param, lm, **options))
        return made[-1]

    yield begin
    for reader in made:
        reader.end()


def _first(endpoint: HeldEndpoint, read: Read, **options: Any) -> Reader:
    """A stream that has given its first piece."""
    reader = read(endpoint.lm(), **options)
    server = threading.Thread(target=lambda: (endpoint.accept(), endpoint.push("one")))
    server.start()
    assert "one" in reader.next()
    server.join(PATIENCE)
    return reader


def test_every_piece_is_given_before_the_next_is_sent(endpoint: HeldEndpoint, read: Read) -> None:
    """collaboration: on all four ways; the endpoint sends a piece only after the one before was received."""
    reader = _first(endpoint, read)
    for text in ("two", " three", "\n", "four"):
        endpoint.push(text)
        got = reader.next()
        assert text in got or text.encode("unicode_escape").decode() in got
    endpoint.finish()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_leaving_a_stream_closes_its_connection(endpoint: HeldEndpoint, read: Read, how: str) -> None:
    """collaboration: closed, or only forgotten: the endpoint, which sends nothing more, sees the connection closed."""
    reader = _first(endpoint, read)
    getattr(reader, how)()
    endpoint.gone_within()


def test_deadline_closes_a_stream_that_goes_on(endpoint: HeldEndpoint, read: Read) -> None:
    """collaboration: pieces that keep coming do not put the deadline off."""
    stop = threading.Event()
    reader = _first(endpoint, read, timeout=0.5)

    def go_on() -> None:
        while not stop.wait(0.02):
            try:
                endpoint.push("more")
            except OSError:
                return

    pushing = threading.Thread(target=go_on)
    pushing.start()
    began = time.monotonic()
    try:
        with pytest.raises(LMTimeoutError):
            while time.monotonic() < began + PATIENCE:
                reader.next()
    finally:
        stop.set()
        pushing.join(PATIENCE)
    endpoint.gone_within()


@pytest.mark.parametrize("route", ["astream", "aforward"])
def test_cancelled_task_closes_its_stream(endpoint: HeldEndpoint, client: LMClient, route: str) -> None:
    """collaboration: while the task waits for a piece, and while it does something else."""

    async def cancelled(busy: bool) -> None:
        lm = endpoint.lm()
        client.register(lm)
        request = forwarded(lm, stream=True, body=b'{"model":"m","messages":[],"stream":true}', cache=False)
        came = asyncio.Event()

        async def consume() -> None:
            stream: AsyncIterator[Any] = client.astream(lm, ASK) if route == "astream" else client.aforward(request)
            async for item in stream:
                if isinstance(item, str | bytes):
                    came.set()
                    if busy:
                        await asyncio.Event().wait()

        task = asyncio.create_task(consume())
        await asyncio.to_thread(lambda: (endpoint.accept(), endpoint.push("one")))
        await asyncio.wait_for(came.wait(), PATIENCE)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.cancelled()
        del task
        gc.collect()
        await asyncio.to_thread(endpoint.gone_within)
        await client.aclose()

    for busy in (False, True):
        asyncio.run(cancelled(busy))


@pytest.mark.parametrize("ending", ["reset", "garbage", "close"])
def test_what_breaks_while_nobody_reads_is_said_to_the_next_reader(
    endpoint: HeldEndpoint, read: Read, ending: str
) -> None:
    """collaboration: a consumer that was busy when the connection broke hears of it, and waits for nothing."""
    reader = _first(endpoint, read)
    connection = endpoint._connection
    assert connection is not None
    if ending == "garbage":
        connection.sendall(b"zz\r\n")
    elif ending == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        endpoint._connection = None
    else:
        connection.close()
        endpoint._connection = None
    for _ in range(20):
        reader.turn()
    began = time.monotonic()
    with pytest.raises(LMError):
        reader.next()
    assert time.monotonic() - began < PATIENCE / 2


def _texts(client: LMClient, lm: LM, route: str) -> list[str | Completion]:
    if route == "stream":
        return list(client.stream(lm, ASK))

    async def gather() -> list[str | Completion]:
        return [item async for item in client.astream(lm, ASK)]

    return asyncio.run(gather())


@pytest.mark.parametrize("route", ["stream", "astream"])
def test_stream_fails_over_before_its_first_text(fake: Fake, client: LMClient, route: str) -> None:
    """collaboration: a refusal, no connection, an error inside the stream, and a stream that breaks at once."""
    backup = fake(["from the backup"] * 4, model="openai/backup")
    broken = FakeReply(body=b'data: {"error": {"message": "overloaded", "code": "server_error"}}\n\n')
    for reply in (FakeReply(status=401), FakeReply(status=503), broken, FakeReply("never seen", cut=0)):
        first = fake([reply], retries=0)
        items = _texts(client, first.replace(fallbacks=[backup.lm], api_key=first.api_key), route)
        assert "".join(item for item in items if isinstance(item, str)) == "from the backup"
        assert isinstance(items[-1], Completion)


@pytest.mark.parametrize("route", ["stream", "astream"])
def test_stream_does_not_fail_over_once_text_was_given(fake: Fake, client: LMClient, route: str) -> None:
    """collaboration: half an answer and then another's would be neither's."""
    backup = fake(["from the backup"], model="openai/backup")
    first = fake([FakeReply("a b c d", chunks=["a ", "b ", "c ", "d"], cut=700)], retries=0)
    lm = first.replace(fallbacks=[backup.lm], api_key=first.api_key)
    got: list[Any] = []
    with pytest.raises(LMTransportError):
        if route == "stream":
            got.extend(client.stream(lm, ASK))
        else:

            async def gather() -> None:
                async for item in client.astream(lm, ASK):
                    got.append(item)  # noqa: PERF401 - what came before the error is wanted too

            asyncio.run(gather())
    assert not backup.requests


def test_stream_reports_the_first_failure_when_all_fail(fake: Fake, client: LMClient) -> None:
    """collaboration"""
    backup = fake([FakeReply(status=500)] * 2, retries=0, model="openai/backup")
    first = fake([FakeReply(status=401)], retries=0)
    with pytest.raises(LMAuthError):
        list(client.stream(first.replace(fallbacks=[backup.lm], api_key=first.api_key), ASK))
    assert len(backup.requests) == 1
    with pytest.raises(LMServerError):
        list(client.stream(backup.lm, ASK))


def test_stream_that_was_given_up_is_counted(endpoint: HeldEndpoint, client: LMClient) -> None:
    """collaboration: it was paid for; what it came to is counted by its length, for nobody reports it."""
    with Account("job") as account:
        reader = Reader(client, "stream", endpoint.lm(price=(1, 1)))
        server = threading.Thread(target=lambda: (endpoint.accept(), endpoint.push("one")))
        server.start()
        assert reader.next() == "one"
        server.join(PATIENCE)
        reader.close()
    endpoint.gone_within()
    assert (account.requests, account.unpriced_requests) == (1, 0)
    (used,) = account.usage.values()
    assert used["completion_tokens"] == 1 and account.cost


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_stream_is_read_alike_however_its_bytes_are_cut(newline: str) -> None:
    """unit: events with both kinds of line ends, comments between them, cut at every byte and into single bytes."""
    lm = LM("openai/m", api_key="k")
    whole = event("a\r\n b") + b": keep-alive\n\n" + event("é") + event(finish="stop") + b"data: [DONE]\n\n"
    data = whole.replace(b"\n", newline.encode())
    cuts = [[data[:at], data[at:]] for at in range(len(data))] + [[bytes([byte]) for byte in data]]
    for pieces in cuts:
        reader = openai.reader(lm)
        texts = [text for piece in pieces for text in reader.feed(piece)]
        assert "".join(texts) == "a\r\n bé" == reader.finish().text


def test_stream_that_never_says_why_it_ended_is_served_and_not_kept(
    peer: Callable[..., Peer], client: LMClient
) -> None:
    """collaboration: some servers give no finish_reason, and gateways end with [DONE] what broke off before it."""

    def body(text: str, reason: str | None) -> bytes:
        event = {"choices": [{"delta": {"content": text}, "finish_reason": reason}]}
        return b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n"

    made = peer([http(body("half", None))], [http(body("whole", "stop"))])
    lm = LM("openai/fake", api_base=made.url.removesuffix("/x"), api_key="canary-42424242", retries=0)
    found = ["".join(item for item in client.stream(lm, ASK) if isinstance(item, str)) for _ in range(3)]
    assert found == ["half", "whole", "whole"]
    assert made.accepted == 2
