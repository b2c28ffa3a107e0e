"""Pass the callbacks of a client's calls on to it: tools, metrics, rewards, observers, and its own language models.

A worker's callback comes to the pool's loop, goes to the client as a CALL over its connection, and its answer comes
back the same way. The pool's limits and the call's deadline hold as for handlers of the host; here a client can only
hold up its own calls. Everything is on the service's loop, but for what `handlers` returns.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

from dspex_worker.wire.error_codec import read

from ..errors import DspexError, LMError, UnknownName
from ..pools.callbacks import Callback, HandlerError
from ..pools.nesting import context_within
from ..pools.streams import CREDIT, StreamBuffer
from . import error_messages
from .callback_replies import checked_part, checked_reply
from .protocol import Kind, Message

LM_REQUEST: Final = "lm.request"
ANSWERED: Final = frozenset({"tool.call", "metric.call", "call.seen"})  # what clients may answer, beside their LMs
Send = Callable[..., Awaitable[None]]
Handler = Callable[[Callback], Any]


@dataclass(slots=True)
class AskedCallback:
    """One callback that the client has not answered yet."""

    request: Callback
    answer: asyncio.Future[Any]
    parts: StreamBuffer | None = None


class ClientCallbacks:
    """The callbacks that one client answers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._asked: dict[int, AskedCallback] = {}

    def handlers(
        self, names: Collection[str], own_lms: Collection[str], request: int, forward: Callable[[Callback], Any]
    ) -> dict[str, Handler]:
        """Return the handlers of the client's request: of these names, and of requests to its own LMs, by ref.

        `forward` takes the requests to the service's LMs.

        Raises:
            UnknownName: a callback that clients do not answer.
        """
        for name in names:
            if name not in ANSWERED:
                raise UnknownName("callback", name, ANSWERED, where="what clients answer")

        async def ask(callback: Callback) -> Any:
            future = asyncio.run_coroutine_threadsafe(self._ask(callback, request), self._loop)
            return checked_reply(callback.name, await asyncio.wrap_future(future))

        async def ask_lm(callback: Callback) -> Any:
            if callback.arguments.get("lm") in own_lms:
                return self._parts(callback, request)
            return await forward(callback)

        made: dict[str, Handler] = dict.fromkeys(names, ask)
        return {**made, LM_REQUEST: ask_lm} if own_lms else made

    def context_of(self, id: int) -> Context:
        """Return the contextvars for a call that the client makes to answer a callback: it is nested in that one's.

        Raises:
            UnknownName: no such callback waits for an answer.
        """
        asked = self._asked.get(id)
        if asked is None:
            raise UnknownName("callback", str(id), (), where="what this client has to answer")
        return context_within(asked.request.pool, asked.request.outer)

    def take(self, message: Message) -> None:
        """Take a part or the end of an answer; one that nobody waits for any more is dropped."""
        kind, id, body, *_ = message
        asked = self._asked.get(id)
        if asked is None or asked.answer.done():
            return
        if kind == Kind.CHUNK:
            if asked.parts is not None:
                asked.parts.receive(body)
        elif kind == Kind.ERROR:
            asked.answer.set_exception(_raised(body))
        else:
            asked.answer.set_result(body)

    # ============================================================================================================

    async def _ask(self, callback: Callback, request: int, parts: StreamBuffer | None = None) -> Any:
        """Send a callback to the client and return its answer."""
        id = next(self._ids)
        asked = self._asked[id] = AskedCallback(callback, self._loop.create_future(), parts)
        left = callback.outer.remaining()
        meta: dict[str, Any] = {"for": request} | ({} if math.isinf(left) else {"timeout": max(0.0, left)})
        if parts is not None:
            meta["credit"] = CREDIT
        try:
            await self._send(Kind.CALL, id, callback.name, callback.arguments, meta)
            return await asked.answer
        except asyncio.CancelledError:
            await self._send_quietly(Kind.CANCEL, id)
            raise
        finally:
            del self._asked[id]
            if parts is not None:
                parts.finish()

    async def _parts(self, callback: Callback, request: int) -> AsyncGenerator[Any, None]:
        """Yield the parts of a streamed answer. On the pool's loop."""
        buffer = StreamBuffer(asyncio.get_running_loop())
        future = asyncio.run_coroutine_threadsafe(self._ask(callback, request, buffer), self._loop)
        is_first = True
        try:
            while (found := await buffer.atake())[0]:
                buffer.allow(1)
                self._loop.call_soon_threadsafe(self._grant, callback)
                yield checked_part(found[1], is_first=is_first)
                is_first = False
            await asyncio.wrap_future(future)
        finally:
            future.cancel()

    def _grant(self, callback: Callback) -> None:
        """Let the client send one part more."""
        for id, asked in self._asked.items():
            if asked.request is callback:
                task = self._loop.create_task(self._send_quietly(Kind.CREDIT, id, 1))
                task.add_done_callback(lambda it: it.cancelled() or it.exception())
                return

    async def _send_quietly(self, *message: object) -> None:
        try:
            await self._send(*message)
        except OSError:
            pass  # the client is gone, and with it what it had to answer


def _raised(described: object) -> BaseException:
    """Return what the client raised: an error of DSPex's as what it is, another one as it described it."""
    found = read(described)
    known = error_messages.rebuild(described)
    if isinstance(known, DspexError) and type(known).__name__ == found.kind:
        if isinstance(known, LMError):
            known.message = found.message  # which is no fact of it
            known.args = (f"[{known.model}] {found.message}" if known.model else found.message,)
        return known
    return HandlerError(
        {
            "kind": found.kind or found.type,
            "type": found.type,
            "message": found.message,
            "traceback": found.traceback,
            "facts": {},
        }
    )
