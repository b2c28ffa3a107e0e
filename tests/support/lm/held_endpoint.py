"""A streaming endpoint that sends nothing until it is told to, and says when its client has gone."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from typing import Any

from dspex.lm.record import LM

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PATIENCE = 20.0


def event(text: str | None = None, finish: str | None = None, **facts: Any) -> bytes:
    """One event of a chat completion's stream."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **facts}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    """The bytes as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class HeldEndpoint:
    """Serves one connection after the other; `push` writes to the one that is open."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.api_base = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()

    def lm(self, **options: Any) -> LM:
        return LM("openai/m", api_base=self.api_base, api_key="k", **{"cache": False, "retries": 0, **options})

    def accept(self) -> None:
        """Take the next connection, read its request and begin the response."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        connection.sendall(HEAD)
        self._connection = connection

    def push(self, *texts: str) -> None:
        """Send pieces of text."""
        assert self._connection is not None
        for text in texts:
            self._connection.sendall(chunk(event(text)))

    def finish(self) -> None:
        """Send the end of the answer; the connection may be used again."""
        assert self._connection is not None
        self._connection.sendall(chunk(event(finish="stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def gone_within(self, seconds: float = PATIENCE) -> float:
        """Wait until the client has closed the connection; the seconds that took.

        Raises:
            AssertionError: it did not.
        """
        assert self._connection is not None
        began = time.monotonic()
        poll = select.poll()
        poll.register(self._connection, select.POLLIN | select.POLLHUP | select.POLLERR)
        assert poll.poll(seconds * 1000), "the client still holds the connection"
        try:
            data = self._connection.recv(1)
        except ConnectionError:
            data = b""
        assert data == b"", "the client sent something instead of closing"
        took = time.monotonic() - began
        self._connection.close()
        self._connection = None
        return took

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
