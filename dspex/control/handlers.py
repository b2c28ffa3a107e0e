"""Handle the requests of one control client. Everything runs on the service's loop.

Sessions are the client's own: two clients that use one id never meet, unless both say `shared` (S1). A client's own
sessions end with its connection; shared ones live by the pool's session_ttl. No verb makes a pool or changes a pool's
settings other than its size (X7).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from dspex_worker.wire import Packed

from .. import defaults
from ..errors import UnknownName, UsageError
from ..lm.redaction import redact
from ..pools.calling_client import calling_client
from ..pools.pool import Pool
from ..pools.session import Session, session_key
from ..pools.supervisor import Supervisor
from . import request_fields
from .call_lms import with_lm
from .call_request import arguments_of
from .event_log import EventLog
from .following import Chunk, Following
from .inspection_handlers import INSPECTION_HANDLERS, log_filter
from .job_handlers import JOB_HANDLERS, jobs_of
from .job_handlers import events as events_of_job
from .pool_handlers import POOL_HANDLERS
from .protocol import CLIENTS_ONLY, Role, Verb
from .request_fields import Fields
from .run_files import RunFile


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """The facts that a client may see about its service."""

    run: RunFile
    clients: int
    max_clients: int


class Handlers:
    """One client's requests."""

    def __init__(
        self,
        client: str,
        supervisor: Supervisor,
        events: EventLog,
        *,
        lines: EventLog,
        facts: Callable[[], ServiceFacts],
        on_stop: Callable[[float | None], None],
        on_restart: Callable[[float | None], None] | None = None,
    ) -> None:
        """`on_stop(grace)` is called when the client wants the supervisor to stop; it must not block.

        So is `on_restart`, where the process can begin anew.
        """
        self._supervisor = supervisor
        self._event_log = events
        self._lines = lines
        self._facts = facts
        self._on_stop = on_stop
        self._on_restart = on_restart
        self._client = client
        self.role: str = Role.CLIENT
        self._following = Following()

    def begin(self, role: str) -> dict[str, Any]:
        """Serve the client in this role; return the facts of the service's HELLO."""
        self.role = role
        run = self._facts().run
        pools = [self._supervisor.pool(name) for name in self._supervisor.pools]
        return {
            "client": self._client,
            "name": run.name,
            "pid": run.pid,
            "version": run.version,
            "kind": run.kind,
            "timeouts": {pool.name: pool.config.call_timeout for pool in pools},
        }

    def end(self) -> None:
        """Drop the sessions of the client: it is gone."""
        for pool in self._supervisor.pools:
            self._supervisor.pool(pool).close_sessions_of(self._client)

    def end_following(self) -> None:
        """End the streams that have no end of their own."""
        self._following.end()

    async def answer(self, verb: str, fields: Fields) -> Any:
        """Run a request and return its answer.

        Raises:
            UnknownName: there is no such verb.
            UsageError: an operator makes a call.
            DspexError: what the supervisor raises.
        """
        self._check_role(verb)
        if (handler := _ANSWERS.get(verb)) is not None:
            return await handler(self, fields)
        if (change := POOL_HANDLERS.get(verb)) is not None:
            return await change(self._pool(fields), fields)
        if (look := INSPECTION_HANDLERS.get(verb)) is not None:
            return await look(self._supervisor, fields)
        if (of_jobs := JOB_HANDLERS.get(verb)) is not None:
            return await of_jobs(self._supervisor, fields)
        known = [*_ANSWERS, *POOL_HANDLERS, *INSPECTION_HANDLERS, *JOB_HANDLERS, *_STREAMS]
        raise UnknownName("verb", verb, known)

    async def chunks(self, verb: str, fields: Fields) -> AsyncGenerator[Chunk, None]:
        """Run a streamed request.

        Raises:
            UnknownName: there is no such streamed verb.
        """
        self._check_role(verb)
        try:
            handler = _STREAMS[verb]
        except KeyError:
            raise UnknownName("streamed verb", verb, _STREAMS) from None
        async with contextlib.aclosing(handler(self, fields)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _check_role(self, verb: str) -> None:
        if self.role == Role.OPERATOR and verb in CLIENTS_ONLY:
            raise UsageError(f"An operator's connection makes no calls: for {verb!r} connect as a client.")

    # -- calls -------------------------------------------------------------------------------------------------

    async def _call(self, fields: Fields) -> Any:
        call = await self._called_pool(fields).ainvoke(
            request_fields.text(fields, "command"),
            self._arguments(fields),
            session=self._session(fields),
            timeout=request_fields.seconds(fields, "timeout"),
            idempotent=request_fields.flag(fields, "idempotent"),
            keeps_packed=True,
            is_trusted=False,
        )
        return call.result()

    async def _stream(self, fields: Fields) -> AsyncGenerator[Chunk, None]:
        stream = self._called_pool(fields).astream(
            request_fields.text(fields, "command"),
            self._arguments(fields),
            session=self._session(fields),
            timeout=request_fields.seconds(fields, "timeout"),
            keeps_packed=True,
            is_trusted=False,
        )
        async with stream:
            async for chunk in stream:
                yield False, chunk
            yield True, stream.value

    def _arguments(self, fields: Fields) -> dict[str, Any] | Packed:
        """Return the command's arguments, with the language model that the request names."""
        arguments, lm = arguments_of(fields), request_fields.optional_text(fields, "lm")
        if lm is None:
            return arguments
        return with_lm(arguments, lm, self._called_pool(fields).name, self._supervisor)

    def _called_pool(self, fields: Fields) -> Pool:
        """Return the pool of a call, which checks by itself whether it can take one."""
        calling_client.set(self._client)  # of this request's own task
        return self._supervisor.pool(request_fields.text(fields, "pool"))

    # -- sessions ----------------------------------------------------------------------------------------------

    async def _open_session(self, fields: Fields) -> dict[str, Any]:
        session = Session(
            self._pool(fields),
            request_fields.optional_text(fields, "id"),
            durable=request_fields.flag(fields, "durable"),
            fresh=request_fields.flag(fields, "fresh"),
            client=self._client,
            shared=request_fields.flag(fields, "shared"),
        )
        return {"id": session.id, "key": session.key}

    async def _close_session(self, fields: Fields) -> None:
        self._pool(fields).close_session(self._key(request_fields.text(fields, "id"), fields))

    def _session(self, fields: Fields) -> str | None:
        id = request_fields.optional_text(fields, "session")
        return None if id is None else self._key(id, fields)

    def _key(self, id: str, fields: Fields) -> str:
        return session_key(id, client="shared" if request_fields.flag(fields, "shared") else self._client)

    def _pool(self, fields: Fields) -> Pool:
        self._supervisor.check_usable()
        return self._called_pool(fields)

    # -- status and events -------------------------------------------------------------------------------------

    async def _status(self, fields: Fields) -> dict[str, Any]:
        pools: dict[str, Any] = {name: dict(stats) for name, stats in self._supervisor.stats().items()}
        for stats in pools.values():
            stats["last_boot_error"] = redact(stats["last_boot_error"]) if stats["last_boot_error"] else None
        return {
            "supervisor": self._supervisor_status(),
            "usage": defaults.usage(),
            "pools": pools,
            "health": await self._health({}),
            "jobs": jobs_of(self._supervisor).rows(),
        }

    def _supervisor_status(self) -> dict[str, Any]:
        facts = self._facts()
        run = asdict(facts.run)
        del run["token"]
        return {
            **run,
            "uptime_s": max(0.0, time.time() - facts.run.started_at),
            "settings": self._supervisor.config.source,
            "clients": facts.clients,
            "max_clients": facts.max_clients,
            "state": "running" if self._supervisor.is_running else "stopped",
        }

    async def _health(self, fields: Fields) -> dict[str, Any]:
        rows = self._supervisor.health()
        for row in rows.values():
            row["reason"] = redact(row["reason"])
        return dict(rows)

    def _events(self, fields: Fields) -> AsyncGenerator[Chunk, None]:
        return self._following.rows(self._event_log, fields)

    def _logs(self, fields: Fields) -> AsyncGenerator[Chunk, None]:
        return self._following.rows(self._lines, fields, log_filter(self._supervisor, fields))

    async def _job_events(self, fields: Fields) -> AsyncGenerator[Chunk, None]:
        events = events_of_job(self._supervisor, fields)
        try:
            async for event in self._following.each(lambda: anext(events, None)):
                yield False, event
        finally:
            with contextlib.suppress(RuntimeError):  # a cancelled wait is ending it already
                await events.aclose()
        yield True, None

    # -- stopping ----------------------------------------------------------------------------------------------

    async def _stop(self, fields: Fields) -> dict[str, Any]:
        run = self._facts().run
        self._on_stop(request_fields.seconds(fields, "grace"))
        return {"pid": run.pid, "kind": run.kind}

    async def _restart(self, fields: Fields) -> dict[str, Any]:
        run = self._facts().run
        if self._on_restart is None:
            raise UsageError(f"Process {run.pid} is a host application: restart that itself.")
        self._on_restart(request_fields.seconds(fields, "grace"))
        return {"pid": run.pid, "kind": run.kind}


_ANSWERS: Final[dict[str, Callable[[Handlers, Fields], Awaitable[Any]]]] = {
    Verb.STATUS: Handlers._status,
    Verb.HEALTH: Handlers._health,
    Verb.CALL: Handlers._call,
    Verb.OPEN_SESSION: Handlers._open_session,
    Verb.CLOSE_SESSION: Handlers._close_session,
    Verb.STOP: Handlers._stop,
    Verb.RESTART: Handlers._restart,
}
_STREAMS: Final[dict[str, Callable[[Handlers, Fields], AsyncGenerator[Chunk, None]]]] = {
    Verb.STREAM: Handlers._stream,
    Verb.EVENTS: Handlers._events,
    Verb.LOGS: Handlers._logs,
    Verb.JOB_EVENTS: Handlers._job_events,
}
