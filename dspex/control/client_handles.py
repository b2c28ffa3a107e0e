"""What a client gives for one pool or one session of its supervisor. Thin: everything goes through `Client.ask`."""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import TYPE_CHECKING, Any

from ..pools.streams import AsyncStream, Stream
from .command_client import MARGIN, PATIENCE
from .protocol import Verb

if TYPE_CHECKING:
    from ..pools.stats import PoolStats
    from .client import Client

Arguments = dict[str, Any]


class ClientPool:
    """One pool of a supervisor in another process."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client

    def call(self, command: str, arguments: Arguments | None = None, **options: Any) -> Any:
        """`Client.call` in this pool."""
        return self._client.call(self.name, command, arguments, **options)

    async def acall(self, command: str, arguments: Arguments | None = None, **options: Any) -> Any:
        """`Client.acall` in this pool."""
        return await self._client.acall(self.name, command, arguments, **options)

    def resize(self, size: int) -> None:
        """Aim at `size` workers."""
        self._do(Verb.RESIZE, {"size": size})

    def recycle(self, *, reload: bool = False, timeout: float | None = None) -> None:
        """Replace every worker, one at a time; blocks until all are. `reload` imports the code anew.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; it goes on nevertheless.
        """
        self._do(Verb.RECYCLE, {"reload": reload, "timeout": timeout}, wait=_patience(timeout))

    def drain(self, timeout: float | None = None) -> None:
        """Take no new calls and wait until all that were taken have ended.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; the pool takes no calls nevertheless.
        """
        self._do(Verb.DRAIN, {"timeout": timeout}, wait=_patience(timeout))

    def forgive(self, digest: str) -> bool:
        """End a poison call's quarantine; False if there is none."""
        return bool(self._do(Verb.FORGIVE, {"digest": digest}))

    def stats(self) -> PoolStats:
        """Give what the pool is doing now."""
        return self._client.stats()[self.name]

    def _do(self, verb: str, arguments: Arguments, *, wait: float = PATIENCE) -> Any:
        what = f"{verb} of pool {self.name!r}"
        return self._client.ask(verb, {"pool": self.name, **arguments}, what=what, wait=wait)


class ClientSession:
    """`with client.session("dspy") as s: s.call(...)`. Leaving the block forgets the state."""

    def __init__(self, client: Client, pool: str, id: str | None, *, durable: bool, fresh: bool, shared: bool) -> None:
        self.id = id if id is not None else secrets.token_hex(8)
        self._client = client
        self._pool = pool
        self._names: dict[str, Any] = {"session": self.id, "shared": shared}
        asked = {"pool": pool, "id": self.id, "durable": durable, "fresh": fresh, "shared": shared}
        client.ask(Verb.OPEN_SESSION, asked, what="opening a session")

    def call(self, command: str, arguments: Arguments | None = None, **options: Any) -> Any:
        """`Client.call` in this session."""
        return self._client.call(self._pool, command, arguments, **self._names, **options)

    async def acall(self, command: str, arguments: Arguments | None = None, **options: Any) -> Any:
        """`Client.acall` in this session."""
        return await self._client.acall(self._pool, command, arguments, **self._names, **options)

    def stream(self, command: str, arguments: Arguments | None = None, **options: Any) -> Stream:
        """`Client.stream` in this session."""
        return self._client.stream(self._pool, command, arguments, **self._names, **options)

    def astream(self, command: str, arguments: Arguments | None = None, **options: Any) -> AsyncStream:
        """`Client.astream` in this session."""
        return self._client.astream(self._pool, command, arguments, **self._names, **options)

    def close(self) -> None:
        """Forget the session; its worker drops the state."""
        asked = {"pool": self._pool, "id": self.id, "shared": self._names["shared"]}
        self._client.ask(Verb.CLOSE_SESSION, asked, what="closing a session")

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


def _patience(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout + MARGIN
