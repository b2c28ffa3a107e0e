"""A loopback endpoint that streams chat completions, each piece stamped with the moment at which it is written.

In a process of its own: `python -m benchmarks.streaming_endpoint --pieces N --pause S`; it prints its port. A piece is
" <time.monotonic()>;", a clock that all processes of a machine share, so whoever gets it knows how long it was under
way. `GET /closed` answers with the moments at which streaming connections ended, as the endpoint saw it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

OPENING = "[[ ## answer ## ]]\n"
CLOSING = "\n\n[[ ## completed ## ]]"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    pieces = 100
    pause = 0.01
    ended: list[float] = []  # noqa: RUF012 - the process's own list

    def __init__(self) -> None:
        self._data = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self.ended.append(time.monotonic())
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[:end].lower()
        start = head.find(b"content-length:")
        length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(self._data) < end + 4 + length:
            return
        self._data = self._data[end + 4 + length :]
        if head.startswith(b"get /closed"):
            body = json.dumps(self.ended).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        else:
            self._task = asyncio.get_running_loop().create_task(self._stream())

    async def _stream(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._transport.write(HEAD)
            self._event({"role": "assistant", "content": OPENING})
            for _ in range(self.pieces):
                await asyncio.sleep(self.pause)
                self._event({"content": f" {time.monotonic():.7f};"})
            self._event({"content": CLOSING})
            self._event({}, "stop")
            self._chunk(b"data: [DONE]\n\n")
            self._transport.write(b"0\r\n\r\n")
            self._task = None

    def _event(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any", "choices": [choice]}
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


class StreamingEndpoint:
    """The endpoint's process; a context manager that gives its base URL."""

    def __init__(self, pieces: int, pause: float) -> None:
        self._options = ["--pieces", str(pieces), "--pause", str(pause)]

    def __enter__(self) -> str:
        command = [sys.executable, "-m", "benchmarks.streaming_endpoint", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def closed_at(base: str) -> list[float]:
    """The moments at which streaming connections ended so far."""
    with urllib.request.urlopen(base.removesuffix("/v1") + "/closed", timeout=10) as reply:
        moments: list[float] = json.load(reply)
    return moments


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pieces", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.01)
    given = parser.parse_args()
    Connection.pieces, Connection.pause = given.pieces, given.pause
    asyncio.run(_serve())
