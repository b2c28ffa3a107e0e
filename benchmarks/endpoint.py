"""A loopback endpoint that speaks the chat completions API, in a process of its own: `python -m benchmarks.endpoint`.

It answers every request at once, or after `--delay` seconds, with the same text. It prints its port. With `--drive
PORT` it is the other end: a client that does nothing but send one prepared request again and again, which prints how
many are answered in a second. That is the endpoint's ceiling.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

TEXT = "[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]"


def _reply() -> bytes:
    message = {"role": "assistant", "content": TEXT}
    document = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "any",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    reply = _reply()
    delay = 0.0

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            start = head.find(b"content-length:")
            length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            self._data = self._data[end + 4 + length :]
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self._transport.write, self.reply)
            else:
                self._transport.write(self.reply)


class Endpoint:
    """The endpoint's process; a context manager that gives its base URL."""

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay

    def __enter__(self) -> str:
        command = [sys.executable, "-m", "benchmarks.endpoint", "--delay", str(self._delay)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class Drive(asyncio.Protocol):
    """A connection that sends the next request as soon as the last one is answered."""

    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1100\r\n\r\n" + b"x" * 1100

    def __init__(self, answered: Callable[[], bool], size: int) -> None:
        self._answered, self._size, self._left = answered, size, size

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left == 0:
            self._left = self._size
            if self._answered():
                self._transport.write(self.request)


def ceiling(base: str, *, requests: int, in_flight: int) -> float:
    """How many requests a second the endpoint answers to a client that does nothing else."""
    port = base.removesuffix("/v1").rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.endpoint", "--drive", port, str(requests), str(in_flight)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return float(done.stdout)


async def _drive(port: int, requests: int, in_flight: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    count = 0

    def answered() -> bool:
        nonlocal count
        count += 1
        if count == requests:
            ended.set()
        return count <= requests - in_flight

    start = time.perf_counter()
    for _ in range(in_flight):
        await loop.create_connection(lambda: Drive(answered, len(Connection.reply)), "127.0.0.1", port)
    await ended.wait()
    print(requests / (time.perf_counter() - start), flush=True)


async def _serve(delay: float) -> None:
    Connection.delay = delay
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--drive", type=int, nargs=3, metavar=("PORT", "REQUESTS", "IN_FLIGHT"))
    arguments = parser.parse_args()
    asyncio.run(_drive(*arguments.drive) if arguments.drive else _serve(arguments.delay))
