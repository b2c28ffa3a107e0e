"""What a client of the control service may ask for. One object per client; everything runs on the service's loop.

Sessions are the client's own: two clients that use one id never meet, unless both say `shared` (S1). A client's own
sessions end with its connection; shared ones live by the pool's session_ttl. No verb makes a pool or changes a pool's
settings other than its size (X7).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import defaults
from ..errors import InvalidInput, UnknownName, UsageError
from ..lm.redaction import redact
from ..pools.pool import Pool
from ..pools.session import Session, session_key
from .protocol import CLIENTS_ONLY, Role, Verb

if TYPE_CHECKING:
    from .event_log import Follower
    from .server import Service

WATCH_INTERVAL = 0.02  # seconds between looks at a pool that recycles or drains

Arguments = dict[str, Any]
Chunk = tuple[bool, Any]  # (False, a chunk) or, last, (True, the stream's value)


class Handlers:
    """One client's requests."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._supervisor = service.supervisor
        self._client = ""
        self._role: str = Role.CLIENT
        self._following: set[asyncio.Task[Any]] = set()
        self._is_ending = False

    def begin(self, client: str, role: str) -> None:
        self._client = client
        self._role = role

    def end(self, client: str) -> None:
        """The client is gone: forget its sessions."""
        for pool in self._supervisor.pools:
            self._supervisor.pool(pool).close_sessions_of(client)

    def end_following(self) -> None:
        """End the streams that have no end of their own."""
        self._is_ending = True
        for task in tuple(self._following):
            task.cancel()

    def greeting(self, client: str) -> dict[str, Any]:
        """Give what a client is told first."""
        run = self._service.run
        pools = [self._supervisor.pool(name) for name in self._supervisor.pools]
        return {
            "client": client,
            "name": run.name,
            "pid": run.pid,
            "version": run.version,
            "kind": run.kind,
            "timeouts": {pool.name: pool.config.call_timeout for pool in pools},
        }

    async def answer(self, verb: str, arguments: Arguments) -> Any:
        """Run a request and give its answer.

        Raises:
            UnknownName: there is no such verb.
            UsageError: an operator makes a call.
            DspexError: what the supervisor raises.
        """
        self._check_role(verb)
        try:
            handler = _ANSWERS[verb]
        except KeyError:
            raise UnknownName("verb", verb, [*_ANSWERS, *_STREAMS]) from None
        return await handler(self, arguments)

    async def chunks(self, verb: str, arguments: Arguments) -> AsyncGenerator[Chunk, None]:
        """Run a streamed request."""
        self._check_role(verb)
        try:
            handler = _STREAMS[verb]
        except KeyError:
            raise UnknownName("streamed verb", verb, _STREAMS) from None
        async with contextlib.aclosing(handler(self, arguments)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _check_role(self, verb: str) -> None:
        if self._role == Role.OPERATOR and verb in CLIENTS_ONLY:
            raise UsageError(f"An operator's connection looks and steers; for {verb!r} connect as a client.")

    # -- calls -------------------------------------------------------------------------------------------------

    async def _call(self, arguments: Arguments) -> Any:
        pool = self._pool(arguments)
        return await pool.acall(
            _text(arguments, "command"),
            _mapping(arguments, "arguments"),
            session=self._session(arguments),
            timeout=_number(arguments, "timeout"),
            idempotent=arguments.get("idempotent") is True,
        )

    async def _stream(self, arguments: Arguments) -> AsyncGenerator[Chunk, None]:
        pool = self._pool(arguments)
        stream = pool.astream(
            _text(arguments, "command"),
            _mapping(arguments, "arguments"),
            session=self._session(arguments),
            timeout=_number(arguments, "timeout"),
        )
        async with stream:
            async for chunk in stream:
                yield False, chunk
            yield True, stream.value

    # -- sessions ----------------------------------------------------------------------------------------------

    async def _open_session(self, arguments: Arguments) -> dict[str, Any]:
        pool = self._pool(arguments)
        session = Session(
            pool,
            _optional_text(arguments, "id"),
            durable=arguments.get("durable") is True,
            fresh=arguments.get("fresh") is True,
            client=self._client,
            shared=arguments.get("shared") is True,
        )
        return {"id": session.id, "key": session.key}

    async def _close_session(self, arguments: Arguments) -> None:
        self._pool(arguments).close_session(self._key(_text(arguments, "id"), arguments))

    def _session(self, arguments: Arguments) -> str | None:
        id = _optional_text(arguments, "session")
        return None if id is None else self._key(id, arguments)

    def _key(self, id: str, arguments: Arguments) -> str:
        return session_key(id, client="shared" if arguments.get("shared") is True else self._client)

    # -- looking at it -----------------------------------------------------------------------------------------

    async def _status(self, arguments: Arguments) -> dict[str, Any]:
        service = self._service
        run = asdict(service.run)
        del run["token"]
        pools = self._supervisor.stats()
        for stats in pools.values():
            stats["last_boot_error"] = redact(stats["last_boot_error"]) if stats["last_boot_error"] else None
        return {
            "supervisor": {
                **run,
                "uptime_s": max(0.0, time.time() - service.run.started_at),
                "settings": self._supervisor.config.source,
                "clients": service.clients,
                "max_clients": service.max_clients,
                "state": "running" if self._supervisor.is_running else "stopped",
            },
            "usage": defaults.usage(),
            "pools": pools,
            "health": await self._health({}),
        }

    async def _health(self, arguments: Arguments) -> dict[str, Any]:
        rows = self._supervisor.health()
        for row in rows.values():
            row["reason"] = redact(row["reason"])
        return dict(rows)

    async def _events(self, arguments: Arguments) -> AsyncGenerator[Chunk, None]:
        loop = asyncio.get_running_loop()
        recent, follower = self._service.events.follow(loop)
        try:
            wanted = min(len(recent), _count(arguments, "recent", default=len(recent)))
            for row in recent[len(recent) - wanted :]:
                yield False, row
            if arguments.get("follow") is True:
                async for row in self._followed(follower):
                    yield False, row
        finally:
            follower.close()
        yield True, None

    async def _followed(self, follower: Follower) -> AsyncGenerator[dict[str, Any], None]:
        """Give events until the service closes."""
        while not self._is_ending:
            waiting = asyncio.ensure_future(follower.next())
            self._following.add(waiting)
            try:
                row = await waiting
            except asyncio.CancelledError:
                if waiting.cancelled() and not _is_cancelling():
                    return
                raise
            finally:
                waiting.cancel()
                self._following.discard(waiting)
            yield row

    # -- changing it -------------------------------------------------------------------------------------------

    async def _resize(self, arguments: Arguments) -> None:
        self._pool(arguments).resize(_count(arguments, "size"))

    async def _recycle(self, arguments: Arguments) -> None:
        pool = self._pool(arguments)
        before = {row["generation"] for row in pool.stats()["workers"]}
        with contextlib.suppress(TimeoutError):  # it goes on by itself; waiting here would hold up the loop
            pool.recycle(reload=arguments.get("reload") is True, timeout=0.0)
        await self._watch(pool, arguments, lambda: not before & _generations(pool), "replace its workers")

    async def _drain(self, arguments: Arguments) -> None:
        pool = self._pool(arguments)
        with contextlib.suppress(TimeoutError):
            pool.drain(timeout=0.0)
        await self._watch(pool, arguments, lambda: _is_idle(pool), "finish its calls")

    async def _forgive(self, arguments: Arguments) -> bool:
        return self._pool(arguments).forgive(_text(arguments, "digest"))

    async def _stop(self, arguments: Arguments) -> dict[str, Any]:
        self._service.request_stop(_number(arguments, "grace"))
        return {"pid": self._service.run.pid, "kind": self._service.run.kind}

    async def _watch(self, pool: Pool, arguments: Arguments, is_done: Callable[[], bool], what: str) -> None:
        timeout = _number(arguments, "timeout")
        try:
            async with asyncio.timeout(timeout):
                while not is_done():  # noqa: ASYNC110 - a pool tells nobody: its own verbs look in turns, too
                    await asyncio.sleep(WATCH_INTERVAL)
        except TimeoutError:
            raise TimeoutError(f"Pool {pool.name!r} did not {what} within {timeout:g} s; it goes on.") from None

    def _pool(self, arguments: Arguments) -> Pool:
        self._supervisor.check_usable()
        return self._supervisor.pool(_text(arguments, "pool"))


_ANSWERS: dict[str, Callable[[Handlers, Arguments], Awaitable[Any]]] = {
    Verb.STATUS: Handlers._status,
    Verb.HEALTH: Handlers._health,
    Verb.CALL: Handlers._call,
    Verb.OPEN_SESSION: Handlers._open_session,
    Verb.CLOSE_SESSION: Handlers._close_session,
    Verb.RESIZE: Handlers._resize,
    Verb.RECYCLE: Handlers._recycle,
    Verb.DRAIN: Handlers._drain,
    Verb.FORGIVE: Handlers._forgive,
    Verb.STOP: Handlers._stop,
}

_STREAMS: dict[str, Callable[[Handlers, Arguments], AsyncGenerator[Chunk, None]]] = {
    Verb.STREAM: Handlers._stream,
    Verb.EVENTS: Handlers._events,
}


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _generations(pool: Pool) -> set[int]:
    return {row["generation"] for row in pool.stats()["workers"]}


def _is_idle(pool: Pool) -> bool:
    stats = pool.stats()
    return not stats["queued"] and not any(row["running"] - row["abandoned"] for row in stats["workers"])


# -- arguments: what came over the socket has no types yet --


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be text, not {type(value).__name__}.", field=name)
    return value


def _optional_text(arguments: Arguments, name: str) -> str | None:
    return None if arguments.get(name) is None else _text(arguments, name)


def _mapping(arguments: Arguments, name: str) -> dict[str, Any]:
    value = arguments.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidInput(f"{name} must be a mapping, not {type(value).__name__}.", field=name)
    return value or {}


def _number(arguments: Arguments, name: str) -> float | None:
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InvalidInput(f"{name} must be a number of seconds, 0 or more, or absent.", field=name)
    return float(value)


def _count(arguments: Arguments, name: str, *, default: int | None = None) -> int:
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{name} must be a whole number, 0 or more.", field=name)
    return value
