"""Handle the requests of one control client. Everything runs on the service's loop.

No verb makes a pool or changes a pool's settings other than its size (X7). Calls and sessions are in `served_calls`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from .. import defaults
from ..errors import UnknownName, UsageError
from ..lm.redaction import redact
from ..pools.pool import Pool
from ..pools.supervisor import Supervisor
from ..services.served_lms import told_lms
from ..terminal_text import encodable
from . import lm_handlers, request_fields
from .client_callbacks import ClientCallbacks
from .client_facts import ClientFacts
from .event_log import EventLog
from .following import Chunk, Following
from .inspection_handlers import INSPECTION_HANDLERS, log_filter
from .job_handlers import JOB_HANDLERS, jobs_of
from .job_handlers import events as events_of_job
from .pool_handlers import POOL_HANDLERS
from .protocol import CLIENTS_ONLY, Role, Verb
from .request_fields import Fields
from .run_files import RunFile
from .served_calls import Answered, ServedCalls
from .served_pools import facts_of


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
        self._calls = ServedCalls(client, supervisor)
        self.role: str = Role.CLIENT
        self._following = Following()

    @property
    def callbacks(self) -> ClientCallbacks:
        """The callbacks that the client answers."""
        return self._calls.callbacks

    @callbacks.setter
    def callbacks(self, callbacks: ClientCallbacks) -> None:
        self._calls.callbacks = callbacks

    def begin(self, role: str, hello: Mapping[str, Any]) -> dict[str, Any]:
        """Serve the client in this role; return the facts of the service's HELLO.

        Raises:
            InvalidInput, SettingsError: it calls itself what cannot be, or its budget cannot be.
        """
        self.role = role
        run = self._facts().run
        pools = [self._supervisor.pool(name) for name in self._supervisor.pools]
        facts = {
            "client": self._client,
            "name": run.name,
            "pid": run.pid,
            "version": run.version,
            "kind": run.kind,
            "timeouts": {pool.name: pool.config.call_timeout for pool in pools},
        }
        if role == Role.OPERATOR:
            return facts
        self._calls.begin(ClientFacts.of(hello))
        return {**facts, "pools": {pool.name: facts_of(pool) for pool in pools}, "lms": told_lms(self._supervisor)}

    def end(self) -> None:
        """Drop the sessions of the client: it is gone."""
        self._calls.end()

    def end_following(self) -> None:
        """End the streams that have no end of their own."""
        self._following.end()

    async def answer(self, verb: str, fields: Fields, id: int) -> Answered:
        """Run a request and return its answer.

        Raises:
            UnknownName: there is no such verb.
            UsageError: an operator makes a call.
            DspexError: what the supervisor raises.
        """
        self._check_role(verb)
        if verb == Verb.CALL:
            return await self._calls.call(fields, id)
        if (handler := _ANSWERS.get(verb)) is not None:
            return Answered(await handler(self, fields))
        if (change := POOL_HANDLERS.get(verb)) is not None:
            return Answered(await change(self._pool(fields), fields))
        if (look := INSPECTION_HANDLERS.get(verb)) is not None:
            return Answered(await look(self._supervisor, fields))
        if (of_jobs := JOB_HANDLERS.get(verb)) is not None:
            return Answered(await of_jobs(self._supervisor, fields))
        known = [Verb.CALL, *_ANSWERS, *POOL_HANDLERS, *INSPECTION_HANDLERS, *JOB_HANDLERS, Verb.STREAM, *_STREAMS]
        raise UnknownName("verb", verb, known)

    async def chunks(self, verb: str, fields: Fields, id: int) -> AsyncGenerator[Chunk, None]:
        """Run a streamed request.

        Raises:
            UnknownName: there is no such streamed verb.
        """
        self._check_role(verb)
        if verb == Verb.STREAM:
            made = self._calls.stream(fields, id)
        elif (handler := _STREAMS.get(verb)) is not None:
            made = handler(self, fields)
        else:
            raise UnknownName("streamed verb", verb, [Verb.STREAM, *_STREAMS])
        async with contextlib.aclosing(made) as chunks:
            async for chunk in chunks:
                yield chunk

    def _check_role(self, verb: str) -> None:
        if self.role == Role.OPERATOR and verb in CLIENTS_ONLY:
            raise UsageError(f"An operator's connection makes no calls: for {verb!r} connect as a client.")

    # -- calls -------------------------------------------------------------------------------------------------

    async def _open_session(self, fields: Fields) -> dict[str, Any]:
        return await self._calls.open_session(fields)

    async def _close_session(self, fields: Fields) -> None:
        await self._calls.close_session(fields)

    async def _usage(self, fields: Fields) -> dict[str, Any]:
        return self._calls.usage()

    async def _complete(self, fields: Fields) -> dict[str, Any]:
        with self._calls.counted():
            return await lm_handlers.complete(self._supervisor, fields)

    async def _embed(self, fields: Fields) -> list[bytes]:
        with self._calls.counted():
            return await lm_handlers.embed(self._supervisor, fields)

    async def _stream_lm(self, fields: Fields) -> AsyncGenerator[Chunk, None]:
        with self._calls.counted():
            async for chunk in lm_handlers.stream(self._supervisor, fields):
                yield chunk

    def _pool(self, fields: Fields) -> Pool:
        self._supervisor.check_usable()
        return self._calls.pool(fields)

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
            "socket": encodable(run["socket"]),
            "uptime_s": max(0.0, time.time() - facts.run.started_at),
            "settings": encodable(self._supervisor.config.source),
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
    Verb.OPEN_SESSION: Handlers._open_session,
    Verb.CLOSE_SESSION: Handlers._close_session,
    Verb.STOP: Handlers._stop,
    Verb.RESTART: Handlers._restart,
    Verb.USAGE: Handlers._usage,
    Verb.COMPLETE: Handlers._complete,
    Verb.EMBED: Handlers._embed,
}
_STREAMS: Final[dict[str, Callable[[Handlers, Fields], AsyncGenerator[Chunk, None]]]] = {
    Verb.STREAM_LM: Handlers._stream_lm,
    Verb.EVENTS: Handlers._events,
    Verb.LOGS: Handlers._logs,
    Verb.JOB_EVENTS: Handlers._job_events,
}
