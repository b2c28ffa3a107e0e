"""An endpoint that answers each prompt with the word that the prompt asks for, after a while of its own choosing.

It breaks the rules of a good server as real ones do: it closes kept connections at any moment, answers in pieces and
hangs up without an answer. Everything is drawn from a seed. It runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from typing import Any, Self

WORD = re.compile(r"say (\w+)")


class Endpoint:
    """A context manager; `base` is its URL, `connections` are those it holds now, `most` how many it held at once."""

    def __init__(self, seed: int, *, longest_s: float = 0.02, closes: float = 0.0, hangs_up: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.longest_s, self.closes, self.hangs_up = longest_s, closes, hangs_up
        self.connections: set[asyncio.Transport] = set()
        self.most = self.answered = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        listening = self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.base = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for transport in tuple(self.connections):
            transport.abort()
        await asyncio.sleep(0)  # they are closed on the loop's next turn


class _Connection(asyncio.Protocol):
    """One connection; a request at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._endpoint.connections.add(transport)
        self._endpoint.most = max(self._endpoint.most, len(self._endpoint.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._endpoint.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if found and len(body) == int(re.search(rb"content-length: (\d+)", head)[1]):  # type: ignore[index]
            self._data = b""
            draw = self._endpoint.random
            asyncio.get_running_loop().call_later(draw.random() * self._endpoint.longest_s, self._answer, body)

    def _answer(self, body: bytes) -> None:
        endpoint, draw = self._endpoint, self._endpoint.random
        if draw.random() < endpoint.hangs_up:
            self._transport.abort()
            return
        reply = _reply(json.loads(body))
        cut = draw.randrange(1, len(reply)) if draw.random() < 0.3 else len(reply)
        self._transport.write(reply[:cut])
        if cut < len(reply):
            asyncio.get_running_loop().call_later(draw.random() * 0.005, self._transport.write, reply[cut:])
        elif draw.random() < endpoint.closes:  # now, or when the client may just be about to use it again
            asyncio.get_running_loop().call_later(draw.choice((0.0, 0.001, 0.005)), self._transport.close)
        endpoint.answered += 1


def _reply(request: dict[str, Any]) -> bytes:
    word = WORD.findall(request["messages"][-1]["content"])[0]
    message = {"role": "assistant", "content": f"[[ ## answer ## ]]\n{word}\n\n[[ ## completed ## ]]"}
    document = {"model": word, "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
