"""An ASGI application without a framework: a question comes in, DSPy's answer goes out.

    uvicorn --app-dir examples/web asgi:app
    curl 'http://127.0.0.1:8000/?question=Why+is+the+sky+blue%3F'

The language model is the one that DSPEX_LM names.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import dspex

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

supervisor = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=2)])  # starts nothing yet
answer = dspex.chain_of_thought("question -> answer", implementation="python", supervisor=supervisor)


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Serve one request, or the application's whole life."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    question = parse_qs(scope["query_string"].decode()).get("question", [""])[0]
    try:
        out = await while_connected(receive, answer.acall(question=question))
    except dspex.DspexError as error:
        await reply(send, 503, {"error": str(error), "retryable": error.retryable})
    else:
        await reply(send, 200, {"answer": out.answer, "route": out.route})


async def live(receive: Receive, send: Send) -> None:
    """Start the workers with the server, in each of its processes, and stop them with it."""
    await receive()
    async with supervisor:
        await asyncio.to_thread(supervisor.wait_ready)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def while_connected(receive: Receive, call: Awaitable[Any]) -> Any:
    """Await the call; cancel it, down to its worker, when the client goes away or the server gives the request up."""
    work = asyncio.ensure_future(call)
    gone = asyncio.ensure_future(disconnected(receive))
    gone.add_done_callback(lambda _: work.cancel())
    try:
        return await work
    finally:
        gone.cancel()


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def reply(send: Send, status: int, body: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
