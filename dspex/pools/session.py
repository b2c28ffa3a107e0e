"""A session, as its user holds it: calls under its name go to one worker, and may keep state there."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from ..errors import InvalidInput
from .call_verbs import SessionCallKeywords, SessionStreamKeywords, require_known
from .calling_client import LOCAL

if TYPE_CHECKING:
    from ..usage_stats import UsageStats
    from .pool import Pool
    from .streams import AsyncStream, Stream

ID_MOST = 500  # characters of a session's id; pools, workers and accounts keep it


class Session:
    """`with sup.session("dspy") as s: s.call(...)`. Leaving the block drops the state."""

    def __init__(
        self,
        pool: Pool,
        id: str | None,
        *,
        durable: bool,
        fresh: bool,
        client: str,
        shared: bool,
        state: Mapping[str, bytes] | None = None,
    ) -> None:
        self.id = id if id is not None else secrets.token_hex(8)
        self.key = session_key(self.id, client="shared" if shared else client)
        self._pool = pool
        pool.open_session(self.key, is_durable=durable, fresh=fresh, state=state)

    def call(
        self, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[SessionCallKeywords]
    ) -> Any:
        """`Pool.call` in this session."""
        require_known(options, SessionCallKeywords)
        return self._pool.call(command, arguments, session=self.key, **options)

    async def acall(
        self, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[SessionCallKeywords]
    ) -> Any:
        """`Pool.acall` in this session."""
        require_known(options, SessionCallKeywords)
        return await self._pool.acall(command, arguments, session=self.key, **options)

    def stream(
        self, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[SessionStreamKeywords]
    ) -> Stream:
        """`Pool.stream` in this session."""
        require_known(options, SessionStreamKeywords)
        return self._pool.stream(command, arguments, session=self.key, **options)

    def astream(
        self, command: str, arguments: dict[str, Any] | None = None, **options: Unpack[SessionStreamKeywords]
    ) -> AsyncStream:
        """`Pool.astream` in this session."""
        require_known(options, SessionStreamKeywords)
        return self._pool.astream(command, arguments, session=self.key, **options)

    def usage(self) -> UsageStats:
        """Return what its calls have used of language models so far."""
        return self._pool.usage(self.key)

    def close(self) -> None:
        """End the session; its worker drops the state."""
        self._pool.close_session(self.key)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<session {self.id!r} in pool {self._pool.name!r}>"


def session_key(id: str, *, client: str = LOCAL) -> str:
    """Return the key under which the pool and its workers know a client's session.

    Raises:
        InvalidInput: the id is not text, or too long, or the client's name holds a "/": two sessions could have one key
            (S1).
    """
    if not isinstance(id, str) or "/" in client:
        raise InvalidInput(f"A session's id is text, and its client's name has no '/': not {id!r} of {client!r}.")
    if len(id) > ID_MOST:
        raise InvalidInput(f"A session's id has {len(id):,} characters, over the limit of {ID_MOST:,}.")
    return f"{client}/{id}"
