"""A scripted TCP peer that sends exactly the bytes it is told to, and responses to make it send."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest


class Peer:
    """A TCP server: for each connection it plays the next list of replies, one per request, then closes."""

    def __init__(self, *connections: list[bytes | None]) -> None:
        self.accepted = 0
        self.received: list[bytes] = []
        self._scripts = iter(connections)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1/x"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for script in self._scripts:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.append(connection)
            for reply in script:
                try:
                    data = connection.recv(65536)
                except OSError:
                    break
                if not data:
                    break
                self.received.append(data)
                if reply is None:  # hang until the client goes away
                    with_nothing = connection.recv(65536)
                    self.received.append(with_nothing)
                    break
                connection.sendall(reply)
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(*connections: list[bytes | None]) -> Peer:
        made.append(Peer(*connections))
        return made[-1]

    yield make
    for one in made:
        one.close()


BODY = json.dumps(
    {
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


def http(body: bytes = BODY, status: str = "200 OK", *headers: str, version: str = "1.1") -> bytes:
    """A response with its length."""
    lines = [f"HTTP/{version} {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*parts: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    """A chunked response."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + last
