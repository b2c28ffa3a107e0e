"""Make the calls of one client, and keep its sessions. Everything runs on the service's loop.

Sessions are the client's own: two clients that use one id never meet, unless both say `shared` (S1). A client's own
sessions end with its connection; shared ones live by the pool's session_ttl. What its calls use of language models is
counted in its account, which is under its name, and may have a budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import Malformed, Packed

from .. import spans
from ..errors import InvalidInput, PoolClosed
from ..lm.usage import Account, counted_by
from ..pools.call import Call
from ..pools.call_client import CallClient
from ..pools.calling_client import calling_client
from ..pools.durable_sessions import require_state
from ..pools.pool import Pool
from ..pools.session import Session, session_key
from ..pools.streams import AsyncStream
from ..pools.supervisor import Supervisor
from ..services.services import services_of
from . import request_fields
from .call_lms import with_lm
from .call_request import arguments_of
from .client_facts import ClientFacts
from .following import Chunk
from .request_fields import Fields

if TYPE_CHECKING:
    from .client_callbacks import ClientCallbacks

NAMES_MOST = 1000  # refs of language models that a call may bring


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request, and what is said beside it."""

    value: Any
    notes: dict[str, Any] | None = None


class NotedError(Exception):
    """A call's error, and what is said beside it: what was spent before it."""

    def __init__(self, error: Exception, notes: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.error = error
        self.notes = notes


class ServedCalls:
    """The calls and sessions of one client."""

    def __init__(self, client: str, supervisor: Supervisor) -> None:
        self.callbacks: ClientCallbacks
        self._client = client
        self._supervisor = supervisor
        self._account = Account(f"client {client!r}")
        self._share = client
        self._sent: dict[str, dict[str, bytes]] = {}  # of its durable sessions: what it has a copy of

    def begin(self, facts: ClientFacts) -> None:
        """Count for a client of this name, within its budgets.

        Raises:
            SettingsError: the settings bound clients by something that is no budget.
        """
        usd, tokens = facts.within(self._supervisor.config.tables)
        if facts.name:
            self._share = facts.name
            self._account = services_of(self._supervisor).accounts.of_client(facts.name)
        self._account.set_budget(usd=usd, tokens=tokens)

    def end(self) -> None:
        """Drop the sessions of the client: it is gone."""
        for pool in self._supervisor.pools:
            self._supervisor.pool(pool).close_sessions_of(self._client)

    def usage(self) -> dict[str, Any]:
        """Return what the client's calls have used of language models."""
        account = self._account
        return {**account.stats(), "budget_usd": account.budget_usd, "budget_tokens": account.budget_tokens}

    @contextmanager
    def counted(self) -> Generator[Account]:
        """Count what is asked in the block for the client, within its budget; yield what the block has spent.

        A call that is made to answer a callback is not counted in that one's call: the client adds both up.
        """
        spent = Account("call")
        with counted_by(self._account, spent):
            yield spent

    # -- calls -------------------------------------------------------------------------------------------------

    async def call(self, fields: Fields, id: int) -> Answered:
        """Run a command and return its value.

        Raises:
            DspexError: what the pool raises.
            NotedError: an error of a call whose client wants to know what was spent.
        """
        context = self._context(fields)
        if context is None:
            return await self._called(fields, id)
        task = asyncio.get_running_loop().create_task(self._called(fields, id), context=context)
        try:
            return await task
        finally:
            task.cancel()

    async def stream(self, fields: Fields, id: int) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of a streaming command, then its value."""
        context = self._context(fields)
        made = self._streamed(fields, id) if context is None else context.run(self._streamed, fields, id)
        stream, spent = made
        try:
            async with stream:
                async for chunk in stream:
                    yield False, chunk
                notes = {"worker": stream.worker, "spent": spent.stats(), **self._of_session(fields)}
                yield True, Answered(stream.value, notes if fields.get("notes") is True else None)
        except Exception as error:  # any of the call's; what it spent is said beside it
            raise self._told(error, fields, spent) from None

    def _context(self, fields: Fields) -> Context | None:
        """Return the contextvars of a call that answers a callback; None for any other."""
        within = fields.get("within")
        if within is None:
            return None
        if isinstance(within, bool) or not isinstance(within, int):
            raise InvalidInput("within must be the number of a callback.", field="within")
        return self.callbacks.context_of(within)

    def _streamed(self, fields: Fields, id: int) -> tuple[AsyncStream, Account]:
        with self.counted() as spent:  # the call keeps the contextvars that it is made in
            stream = self.pool(fields).astream(
                request_fields.text(fields, "command"),
                self._arguments(fields),
                session=self._session(fields),
                timeout=request_fields.seconds(fields, "timeout"),
                keeps_packed=True,
                is_trusted=False,
                client=self._caller(fields, id),
            )
        return stream, spent

    async def _called(self, fields: Fields, id: int) -> Answered:
        with self.counted() as spent:
            try:
                call = await self.pool(fields).ainvoke(
                    request_fields.text(fields, "command"),
                    self._arguments(fields),
                    session=self._session(fields),
                    timeout=request_fields.seconds(fields, "timeout"),
                    idempotent=request_fields.flag(fields, "idempotent"),
                    keeps_packed=True,
                    is_trusted=False,
                    client=self._caller(fields, id),
                )
                value = call.result()
                return Answered(value, self._notes(call, fields, spent) if fields.get("notes") is True else None)
            except Exception as error:  # as in `stream`
                raise self._told(error, fields, spent) from None

    def _told(self, error: Exception, fields: Fields, spent: Account) -> Exception:
        """Return a call's error as the client gets it: of a service that stops, whether it may be tried again."""
        if isinstance(error, PoolClosed) and (error.is_stopping or not self._supervisor.is_running):
            error.retryable = "if_idempotent" if error.was_running else "now"
        return NotedError(error, {"spent": spent.stats()}) if fields.get("notes") is True else error

    def _caller(self, fields: Fields, id: int) -> CallClient:
        names, own = _texts(fields, "callbacks"), _texts(fields, "own_lms")
        if not (names or own):
            return CallClient(self._share)
        forward = self._supervisor.handlers.find("lm.request") if own else _no_lms
        return CallClient(self._share, self.callbacks.handlers(names, frozenset(own), id, forward))

    def _arguments(self, fields: Fields) -> dict[str, Any] | Packed:
        """Return the command's arguments, with the language model that the request names."""
        arguments, lm = arguments_of(fields), request_fields.optional_text(fields, "lm")
        if lm is None:
            return arguments
        return with_lm(arguments, lm, self.pool(fields).name, self._supervisor)

    def pool(self, fields: Fields) -> Pool:
        """Return the pool of a call, which checks by itself whether it can take one."""
        calling_client.set(self._client)  # of this request's own task
        if spans.source is not None and (carried := request_fields.optional_text(fields, "traceparent")):
            spans.source.adopt(carried)
        return self._supervisor.pool(request_fields.text(fields, "pool"))

    # -- sessions ----------------------------------------------------------------------------------------------

    async def open_session(self, fields: Fields) -> dict[str, Any]:
        self._supervisor.check_usable()
        session = Session(
            self.pool(fields),
            request_fields.optional_text(fields, "id"),
            durable=request_fields.flag(fields, "durable"),
            fresh=request_fields.flag(fields, "fresh"),
            client=self._client,
            shared=request_fields.flag(fields, "shared"),
            state=_state(fields),
        )
        return {"id": session.id, "key": session.key}

    async def close_session(self, fields: Fields) -> None:
        self._supervisor.check_usable()
        key = self._key(request_fields.text(fields, "id"), fields)
        self._sent.pop(key, None)
        self.pool(fields).close_session(key)

    def _session(self, fields: Fields) -> str | None:
        id = request_fields.optional_text(fields, "session")
        return None if id is None else self._key(id, fields)

    def _notes(self, call: Call, fields: Fields, spent: Account) -> dict[str, Any]:
        where = {"worker": call.worker_name, "generation": call.generation}
        return {**where, "spent": spent.stats(), **self._of_session(fields)}

    def _of_session(self, fields: Fields) -> dict[str, Any]:
        """Return what the client keeps of a call's session: whether it has state, and of a durable one what changed."""
        if (key := self._session(fields)) is None:
            return {}
        copy = self.pool(fields).session_copy(key)
        notes: dict[str, Any] = {"stateful": copy.is_stateful}
        if copy.values is None:
            self._sent.pop(key, None)
            return notes
        before, now = self._sent.get(key, {}), dict(copy.values)
        self._sent[key] = now
        wrote = {name: packed for name, packed in now.items() if before.get(name) != packed}
        deleted = [name for name in before if name not in now]
        return notes | ({"state": {"wrote": wrote, "deleted": deleted}} if wrote or deleted else {})

    def _key(self, id: str, fields: Fields) -> str:
        return session_key(id, client="shared" if request_fields.flag(fields, "shared") else self._client)


def _state(fields: Fields) -> dict[str, bytes] | None:
    """Return the state that a durable session is opened with.

    Raises:
        InvalidInput: it is none.
    """
    state = fields.get("state")
    if state is None:
        return None
    try:
        if not isinstance(state, dict) or not request_fields.flag(fields, "durable"):
            raise Malformed("a state is that of a durable session")
        require_state(state)
    except Malformed as error:
        raise InvalidInput(f"The session cannot begin with this state: {error}.", field="state") from None
    return state


def _no_lms(request: object) -> None:
    """Forward nothing: the call has no language models of its client's own."""


def _texts(fields: Fields, name: str) -> list[str]:
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > NAMES_MOST or not all(isinstance(each, str) for each in value):
        raise InvalidInput(f"{name} must be a list of at most {NAMES_MOST} texts.", field=name)
    return value
