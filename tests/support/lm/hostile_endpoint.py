"""A process that serves hostile replies over HTTP: `python -m tests.support.lm.hostile_endpoint`.

It is a process of its own, so that what it costs is no part of what its clients are measured by. The address has the
seed, the prompt the number: `http://127.0.0.1:PORT/SEED.ANY/...`, "number 7". It prints its port, then a line for each
reply, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

from tests.support.lm.hostile_bodies import HostileReply, hostile_reply

_SEED = re.compile(r"/(\d+)\.\d+/")
_NUMBER = re.compile(rb"number (\d+)")


class HostileEndpoint:
    """A running one: its `address` without a reply's name, and what it sent last, of these the longest's size."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.size = 0
        self.what = "nothing"

    def listen(self, lines: Iterator[bytes]) -> None:
        """Take what it says of its replies."""
        for line in lines:
            size, _, what = line.decode("utf-8", "replace").strip().partition(" ")
            self.size, self.what = max(self.size, int(size)), what


@contextlib.contextmanager
def hostile_endpoint() -> Iterator[HostileEndpoint]:
    """Run one."""
    command = [sys.executable, "-m", "tests.support.lm.hostile_endpoint"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    endpoint = HostileEndpoint(int(process.stdout.readline()))
    listening = threading.Thread(target=endpoint.listen, args=(iter(process.stdout),))
    listening.start()
    try:
        yield endpoint
    finally:
        process.stdin.close()
        process.wait(30)
        listening.join(30)
        process.stdout.close()


def dialect_of(path: str) -> str:
    """Return the dialect that is asked at a path."""
    ends = {"/messages": "anthropic", "/embeddings": "embeddings", "/responses": "responses"}
    found = next((dialect for end, dialect in ends.items() if path.endswith(end)), "openai")
    return "gemini" if "enerateContent" in path else found


async def _serve() -> None:
    server = await asyncio.start_server(_answered, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    sys.stdout.flush()
    os._exit(0)  # whoever is still being answered is not waited for


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        while await _one(reader, writer):
            pass
    writer.close()


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    path = head.split(" ", 2)[1]
    length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
    body = await reader.readexactly(int(length[1]) if length else 0)
    key = re.search(r"(?i)\r\n(?:authorization: Bearer|x-api-key:|x-goog-api-key:) *(\S+)", head)
    seed, number = _SEED.search(path), _NUMBER.findall(body)
    assert seed is not None
    streams = "stream" in path.lower() or json.loads(body).get("stream") is True
    reply = hostile_reply(
        int(seed[1]),
        int(number[-1]) if number else 0,
        dialect_of(path),
        stream=streams,
        key=key[1] if key else "no key",
    )
    print(reply.size, reply.what.replace("\n", " "), flush=True)
    return await _sent(writer, reply)


async def _sent(writer: asyncio.StreamWriter, reply: HostileReply) -> bool:
    lines = [f"HTTP/1.1 {reply.status} Status", *(f"{name}: {value}" for name, value in reply.headers)]
    is_chunked = "chunk" in reply.framing
    if is_chunked:
        lines.append("transfer-encoding: chunked")
    elif reply.framing != "close":
        lines.append(f"content-length: {reply.size + {'short': -1, 'long': 1000}.get(reply.framing, 0)}")
    writer.write("\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n")
    for piece in reply.pieces:
        if piece:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
            await writer.drain()
    if is_chunked:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return reply.framing in ("length", "chunked", "tiny chunks")


if __name__ == "__main__":
    asyncio.run(_serve())
