"""Read a request's body within bounds, and work for a client only as long as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.types import Receive

from .request_refused import RequestRefused
from .running_calls import RunningCalls, stopping

T = TypeVar("T")

BODY_WITHIN: Final = 30.0  # seconds for a body to arrive


class ClientGone(Exception):
    """The client went away; nobody waits for an answer."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """Return the body.

    Raises:
        RequestRefused: it is over `limit` bytes, or does not arrive.
        ClientGone: the client went away.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > limit:
                    raise body_too_large(limit)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RequestRefused(
            408,
            "The body did not arrive",
            f"The body did not arrive within {BODY_WITHIN:g} s.",
            {"connection": "close"},
        ) from None


def body_too_large(limit: int, actual: int | None = None) -> RequestRefused:
    """Return the refusal of a body over the limit."""
    found = "more" if actual is None else f"{actual:,}"
    detail = f"The body has {found} bytes; the limit is {limit:,}. Send less."
    return RequestRefused(413, "The body is too large", detail, {"connection": "close"})


async def while_connected(receive: Receive, running: RunningCalls, work: Coroutine[Any, Any, T], within: float) -> T:
    """Return what the work gives; it is cancelled at once when the client goes away, the server stops, or time is up.

    Raises:
        ClientGone: the client went away.
        RequestRefused: the server stopped.
        TimeoutError: `within` seconds were over.
    """
    task = running.task(work)
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError
        if task not in done:
            raise ClientGone
        if task.cancelled():
            raise stopping()
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is told of it once more


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
