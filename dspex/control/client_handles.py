"""A client's handles for one pool or one session of its supervisor. Everything goes through the client."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from ..errors import UnknownName
from ..pools.streams import AsyncStream, Stream
from .call_request import CALL_OPTIONS, CallRequestOptions, StreamRequestOptions
from .operator_client import MARGIN, PATIENCE
from .protocol import Verb
from .request_fields import Fields

if TYPE_CHECKING:
    from ..pools.stats import PoolStats

Arguments = dict[str, Any]


class RequestSender(Protocol):
    """The requests that handles make through their client."""

    @property
    def is_open(self) -> bool: ...
    def ask(self, verb: str, fields: Fields, *, what: str, wait: float = PATIENCE) -> Any: ...
    def call(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any: ...
    def acall(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Awaitable[Any]: ...
    def stream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> Stream: ...
    def astream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> AsyncStream: ...
    def stats(self) -> dict[str, PoolStats]: ...


class ClientPool:
    """One pool of a supervisor in another process."""

    def __init__(self, client: RequestSender, name: str) -> None:
        self.name = name
        self._client = client

    def call(self, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]) -> Any:
        """`Client.call` in this pool."""
        return self._client.call(self.name, command, arguments, **options)

    async def acall(
        self, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any:
        """`Client.acall` in this pool."""
        return await self._client.acall(self.name, command, arguments, **options)

    def resize(self, size: int) -> None:
        """Aim at `size` workers."""
        self._ask(Verb.RESIZE, {"size": size})

    def recycle(self, *, reload: bool = False, timeout: float | None = None) -> None:
        """Replace every worker, one at a time; blocks until all are. `reload` imports the code anew.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; it goes on nevertheless.
        """
        self._ask(Verb.RECYCLE, {"reload": reload, "timeout": timeout}, wait=_patience(timeout))

    def drain(self, timeout: float | None = None) -> None:
        """Take no new calls and wait until all that were taken have ended.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; the pool takes no calls nevertheless.
        """
        self._ask(Verb.DRAIN, {"timeout": timeout}, wait=_patience(timeout))

    def resume(self) -> bool:
        """Take calls again after a `drain`; False if the pool was taking them."""
        return bool(self._ask(Verb.RESUME, {}))

    def forgive(self, digest: str) -> bool:
        """End a poison call's quarantine; False if there is none."""
        return bool(self._ask(Verb.FORGIVE, {"digest": digest}))

    def stats(self) -> PoolStats:
        """Return what the pool is doing now."""
        return self._client.stats()[self.name]

    def _ask(self, verb: str, fields: Fields, *, wait: float = PATIENCE) -> Any:
        what = f"{verb} of pool {self.name!r}"
        return self._client.ask(verb, {"pool": self.name, **fields}, what=what, wait=wait)


class ClientSession:
    """`with client.session("dspy") as s: s.call(...)`. Leaving the block drops the state.

    Its calls take the options of `Client.call` but `session` and `shared`.
    """

    def __init__(
        self, client: RequestSender, pool: str, id: str | None, *, durable: bool, fresh: bool, shared: bool
    ) -> None:
        self.id = id if id is not None else secrets.token_hex(8)
        self._client = client
        self._pool = pool
        self._is_shared = shared
        fields = {"pool": pool, "id": self.id, "durable": durable, "fresh": fresh, "shared": shared}
        client.ask(Verb.OPEN_SESSION, fields, what="opening a session")

    def call(self, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]) -> Any:
        """`Client.call` in this session."""
        return self._client.call(self._pool, command, arguments, **self._within(options))

    async def acall(
        self, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any:
        """`Client.acall` in this session."""
        return await self._client.acall(self._pool, command, arguments, **self._within(options))

    def stream(
        self, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> Stream:
        """`Client.stream` in this session."""
        return self._client.stream(self._pool, command, arguments, **self._within(options))

    def astream(
        self, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> AsyncStream:
        """`Client.astream` in this session."""
        return self._client.astream(self._pool, command, arguments, **self._within(options))

    def close(self) -> None:
        """End the session; its worker drops the state."""
        fields = {"pool": self._pool, "id": self.id, "shared": self._is_shared}
        self._client.ask(Verb.CLOSE_SESSION, fields, what="closing a session")

    def __enter__(self) -> ClientSession:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client.is_open:  # else it has ended with the connection
            self.close()

    async def __aenter__(self) -> ClientSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client.is_open:
            await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"<session {self.id!r} in pool {self._pool!r} of {self._client!r}>"

    def _within(self, options: Any) -> Any:
        """Return the options of a call, in this session.

        Raises:
            UnknownName: they name a session themselves.
        """
        for name in ("session", "shared"):
            if name in options:
                raise UnknownName("option", name, CALL_OPTIONS - {"session", "shared"}, where="a session's call")
        return {**options, "session": self.id, "shared": self._is_shared}


def _patience(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout + MARGIN
