"""Send the HTTP requests of DSPy's LMs through the parent: no socket here; answers arrive in chunks.

The transport is the seam that lm15 (DSPy's own provider library) offers. No key is here: lm15 wants one to build a
request, gets a placeholder, and the header that holds it is dropped before the request leaves. The parent adds the
real one, retries, caches and limits. Any thread; cancelling the call wakes a waiting request.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ...failure import Failure
from ...starting import HELD_KEY
from ..calls.call_context import running
from ..dspy_errors import error_of
from ..dspy_parts import AsyncTransportResponse, NoAnswer, TransportResponse
from .lm_fallbacks import FallbackTurn
from .stream_begins import noting_begin

PLACEHOLDER_KEY = HELD_KEY
_END = object()


@dataclass(slots=True)
class LMCallOptions:
    """The options of an LM call beyond its request's bytes; one per LM call, which may send several requests."""

    rollout_id: int | None = None
    cache: bool | None = None
    turn: FallbackTurn = field(default_factory=FallbackTurn)  # whether it is a fallback's request
    candidates: Iterator[int] = field(default_factory=itertools.count)  # n > 1 sends the same bytes n times
    were_cached: list[bool] = field(default_factory=list)  # per answered request
    headers: list[list[str]] = field(default_factory=list)  # that user code adds to its own LM's requests
    members: dict[str, Any] = field(default_factory=dict)  # of the request's body, which DSPy has no words for
    media: dict[str, Any] = field(default_factory=dict)  # blocks, by the texts that stand for them in the body
    begun_usage: dict[str, int] = field(default_factory=dict)  # what the last stream said first, in lm15's words
    ref: str = ""  # by which the parent knows the LM that was asked last


_carried: ContextVar[LMCallOptions | None] = ContextVar("dspex_carried_lm_call", default=None)
_current: ContextVar[LMCallOptions | None] = ContextVar("dspex_lm_call", default=None)


def current_lm_call() -> LMCallOptions | None:
    """Return what the LM call that this thread or task is in asked for; None outside of one."""
    return _current.get()


def note_carried(asked: LMCallOptions | None) -> None:
    """Note which LM call has just carried that of an LM of user code, whose answer DSPy notes next."""
    _carried.set(asked)


def answered_lm_call() -> LMCallOptions | None:
    """Return the LM call whose answer DSPy notes now."""
    return _current.get() or _carried.get()


@contextmanager
def lm_call(asked: LMCallOptions) -> Generator[None]:
    """Make the requests inside with these options."""
    token = _current.set(asked)
    try:
        yield
    finally:
        _current.reset(token)


class ParentTransport:
    """lm15's synchronous transport: `stream(request)` gives a response whose chunks come from the parent."""

    def __init__(self, ref: str, *, timeout: float | None, cache: bool, is_bare: bool = False) -> None:
        self._ref = ref
        self._is_bare = is_bare  # without the options that the parent has for the LM's answers
        self._timeout = timeout
        self._cache = cache

    def opened(self, request: Any) -> tuple[dict[str, Any], Generator[bytes]]:
        """Send a request; return the response's head, and its body's chunks."""
        call = running()
        call.check_cancelled()  # threads that an optimizer left behind must not ask for what nobody waits for
        chunks = call.stream_parent("lm.request", self.described(request))
        with _as_lm15():
            head = next(chunks)
        if (asked := _current.get()) is not None:
            asked.were_cached.append(bool(head.get("cached")))
        return head, _body(chunks, asked)

    def stream(self, request: Any) -> Any:
        head, chunks = self.opened(request)
        return TransportResponse(
            status=head["status"],
            reason="",
            headers=[(name, value) for name, value in head["headers"]],
            http_version="HTTP/1.1",
            chunks=chunks,
            release=lambda _consumed: chunks.close(),
        )

    def described(self, request: Any) -> dict[str, Any]:
        """Return the arguments of the parent's `lm.request` for one request of lm15."""
        asked = _current.get() or LMCallOptions()
        asked.ref = self._ref
        headers = [[name, value] for name, value in request.headers if PLACEHOLDER_KEY not in value]
        return {
            "lm": self._ref,
            "method": request.method,
            "url": request.url,
            "headers": headers + asked.headers,
            "body": bytes(request.body),
            "stream": b'"stream":true' in request.body,
            "rollout_id": asked.rollout_id,
            "candidate": next(asked.candidates),
            "timeout": request.read_timeout or self._timeout,
            "cache": self._cache if asked.cache is None else asked.cache,
            "has_alternative": asked.turn.has_alternative,
            "instead_of": asked.turn.instead_of,
            "reason": asked.turn.reason,
            **({"members": asked.members} if asked.members else {}),
            **({"media": asked.media} if asked.media else {}),
            **({"is_bare": True} if self._is_bare else {}),
        }


class AsyncParentTransport:
    """The same for lm15's asynchronous providers; the waits happen in threads, as lm15's own key look-ups do."""

    def __init__(self, sync: ParentTransport) -> None:
        self._sync = sync

    def stream(self, request: Any) -> _AsyncResponse:
        return _AsyncResponse(self._sync, request)


class _AsyncResponse:
    def __init__(self, sync: ParentTransport, request: Any) -> None:
        self._sync = sync
        self._request = request
        self._response: Any = None

    async def __aenter__(self) -> Any:
        response = await asyncio.to_thread(self._sync.stream, self._request)
        self._response = response

        async def chunks() -> AsyncIterator[bytes]:
            parts = iter(response)
            while (part := await asyncio.to_thread(next, parts, _END)) is not _END:
                yield part  # type: ignore[misc]

        async def release(_consumed: bool) -> None:
            response.close()

        return AsyncTransportResponse(
            status=response.status,
            reason=response.reason,
            headers=response.headers,
            http_version=response.http_version,
            chunks=chunks(),
            release=release,
        )

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()


def _body(chunks: Any, asked: LMCallOptions | None) -> Generator[bytes]:
    def note(usage: dict[str, int]) -> None:
        if asked is not None:
            asked.begun_usage = usage

    with contextlib.closing(chunks), _as_lm15():
        yield from noting_begin(chunks, note)


@contextmanager
def _as_lm15() -> Generator[None]:
    """Let the parent's failures leave as what lm15 raises for a broken connection, or as DSPy's own error."""
    try:
        yield
    except StopIteration:
        raise NoAnswer("the parent answered the request with nothing") from None
    except Failure as failure:
        if failure.kind == "LMTransportError":
            raise NoAnswer(failure.message) from failure
        raise error_of(failure) from failure
