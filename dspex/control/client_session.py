"""A session in a service, as a client holds it. Everything goes through the client."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Protocol, Unpack

from ..errors import UnknownName
from ..pools.streams import AsyncStream, Stream
from .call_request import CALL_OPTIONS, CallRequestOptions, StreamRequestOptions
from .operator_client import PATIENCE
from .protocol import Verb
from .request_fields import Fields

Arguments = dict[str, Any]


class SessionRequester(Protocol):
    """The requests that a session makes through its client."""

    @property
    def is_open(self) -> bool: ...
    def ask(self, verb: str, fields: Fields, *, what: str, wait: float = PATIENCE) -> Any: ...
    def open_session(self, fields: Fields) -> None: ...
    def call(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any: ...
    async def acall(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any: ...
    def stream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> Stream: ...
    def astream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> AsyncStream: ...


class ClientSession:
    """`with client.session("dspy") as s: s.call(...)`. Leaving the block drops the state.

    Its calls take the options of `Client.call` but `session` and `shared`. When the client's connection has been made
    anew, a durable session goes on with the state that this process has a copy of; another raises SessionLost.
    """

    def __init__(
        self, client: SessionRequester, pool: str, id: str | None, *, durable: bool, fresh: bool, shared: bool
    ) -> None:
        self.id = id if id is not None else secrets.token_hex(8)
        self._client = client
        self._pool = pool
        self._is_shared = shared
        client.open_session({"pool": pool, "id": self.id, "durable": durable, "fresh": fresh, "shared": shared})

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
