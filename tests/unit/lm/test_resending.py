"""Collaboration: a kept connection that turns out closed: the request goes out once more, on a new one, and is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex.errors import LMTransportError
from dspex.lm.http.connection_pool import IDLE_LIMIT_S
from dspex.lm.http.http_message import Head, kept_for
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.peer import http
from tests.support.lm.requests import ASK

PATIENCE_S = 20.0
KEY = "canary-4242424242-canary"


class Fickle:
    """An endpoint that answers each connection's first request, all at once when `wanted` have come, then breaks.

    What it reads after that it counts and answers by closing.
    """

    def __init__(self, wanted: int, *headers: str) -> None:
        self.reads_in_vain = 0
        self.accepted = 0
        self._wanted = threading.Barrier(wanted) if wanted > 1 else None
        self._reply = http(http_body(), "200 OK", *headers)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.api_base = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._breaks = False
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def break_down(self) -> None:
        """From now on read every request and close."""
        self._breaks = True

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                if self._breaks:
                    with self._lock:
                        self.reads_in_vain += 1
                    return
                if self._wanted is not None:
                    self._wanted.wait(PATIENCE_S)
                connection.sendall(self._reply)


def http_body() -> bytes:
    return b'{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}'


@pytest.fixture
def fickle() -> Iterator[Callable[..., Fickle]]:
    made: list[Fickle] = []

    def make(*given: Any) -> Fickle:
        made.append(Fickle(*given))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def told(client: LMClient) -> list[tuple[str, dict[str, Any]]]:
    """The events of the client."""
    told: list[tuple[str, dict[str, Any]]] = []
    client.emit = lambda name, **facts: told.append((str(name), facts))  # type: ignore[method-assign]
    return told


def _lm(endpoint: Fickle, **options: Any) -> LM:
    return LM("openai/m", api_base=endpoint.api_base, api_key=KEY, cache=False, **{"retries": 0, **options})


def _fill(client: LMClient, lm: LM, count: int) -> None:
    """Leave `count` idle connections behind."""
    threads = [threading.Thread(target=client.complete, args=(lm, ASK)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)


async def _afill(client: LMClient, lm: LM, count: int) -> None:
    await asyncio.gather(*(client.acomplete(lm, ASK) for _ in range(count)))


@pytest.mark.parametrize("retries", [0, 2])
def test_request_is_sent_again_once_whatever_the_number_of_idle_connections(
    retries: int, fickle: Callable[..., Fickle], client: LMClient, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: from a thread; an endpoint that reads a request and closes has read it 2 + retries times."""
    monkeypatch.setattr("dspex.lm.retries.BACKOFF_S", 0.001)
    endpoint = fickle(10)
    _fill(client, _lm(endpoint), 10)
    endpoint.break_down()
    with pytest.raises(LMTransportError):
        client.complete(_lm(endpoint, retries=retries), ASK)
    assert endpoint.reads_in_vain == 2 + retries
    assert [name for name, _ in told].count("dspex.lm.resent") == 1


@pytest.mark.parametrize("way", ["acomplete", "astream", "aforward"])
def test_request_of_an_event_loop_is_sent_again_once(
    way: str, fickle: Callable[..., Fickle], client: LMClient, told: list[Any]
) -> None:
    """collaboration: and so is a stream's, and a worker's."""
    from tests.support.lm.requests import forwarded

    endpoint = fickle(10)
    lm = _lm(endpoint)

    async def run() -> None:
        await _afill(client, lm, 10)
        endpoint.break_down()
        client.register(lm)
        with pytest.raises(LMTransportError):
            if way == "acomplete":
                await client.acomplete(lm, ASK)
            elif way == "astream":
                _ = [item async for item in client.astream(lm, ASK)]
            else:
                _ = [item async for item in client.aforward(forwarded(lm))]
        await client.aclose()

    asyncio.run(run())
    assert endpoint.reads_in_vain == 2
    assert told == [("dspex.lm.resent", {"model": "openai/m", "endpoint": endpoint.api_base[7:-3]})]


@pytest.mark.parametrize("way", ["complete", "acomplete"])
def test_request_that_was_sent_again_is_counted(
    way: str, fickle: Callable[..., Fickle], client: LMClient, told: list[Any]
) -> None:
    """collaboration: among the attempts of an answer that came after all."""
    endpoint = fickle(1)
    lm = _lm(endpoint)

    async def asked() -> Any:
        first = await client.acomplete(lm, ASK)
        _half_close(endpoint)
        return first, await client.acomplete(lm, ASK)

    if way == "acomplete":
        first, second = asyncio.run(asked())
    else:
        first = client.complete(lm, ASK)
        _half_close(endpoint)
        second = client.complete(lm, ASK)
    assert first.attempts == 1
    assert (second.text, second.attempts) == ("fine", 1 + len(told))
    assert {name for name, _ in told} <= {"dspex.lm.resent"} and endpoint.accepted == 2


def _half_close(endpoint: Fickle) -> None:
    """Close the endpoint's side of what is open; the client may find that before it sends, or after."""
    for connection in endpoint._open:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("", IDLE_LIMIT_S),
        ("timeout=5, max=100", 4.0),
        ("timeout=5", 4.0),
        ("max=99, timeout=1", 0.5),
        ("TIMEOUT = 600", IDLE_LIMIT_S),
        ("timeout=0", 0.0),
        ("timeout=60, max=0", 0.0),
        ("timeout=soon", IDLE_LIMIT_S),
    ],
)
def test_connection_is_kept_as_long_as_the_peer_keeps_it(said: str, seconds: float) -> None:
    """unit: a second less, since a request on its way when the peer closes is lost."""
    head = Head("HTTP/1.1 200 OK" + (f"\r\nKeep-Alive: {said}" if said else ""), 200)
    assert kept_for(head, IDLE_LIMIT_S) == seconds


@pytest.mark.parametrize("way", ["complete", "acomplete"])
def test_connection_that_the_peer_gives_up_soon_is_not_used_again(
    way: str, fickle: Callable[..., Fickle], client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: Keep-Alive: timeout=2 is over after a second."""
    endpoint = fickle(1, "keep-alive: timeout=2")
    lm, late = _lm(endpoint), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda clock=time.monotonic: clock() + late[0])

    async def twice() -> None:
        for pause in (0.0, 1.5):
            late[0] = pause
            await client.acomplete(lm, ASK)

    if way == "acomplete":
        asyncio.run(twice())
    else:
        for pause in (0.0, 1.5):
            late[0] = pause
            client.complete(lm, ASK)
    assert endpoint.accepted == 2
