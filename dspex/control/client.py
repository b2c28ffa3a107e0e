"""Call a supervisor in another process: `dspex.connect()` returns a client with a Supervisor's calls.

    with dspex.connect() as client:
        client.call("dspy", "ping")
        answer = dspex.chain_of_thought("question -> answer", supervisor=client)

Usable from any thread and any event loop; all share one connection and its one daemon thread. Programs take it as
their supervisor: their workers are the service's, their tools, metrics and rewards run here, and their language models
are the service's, by its names, unless they name one of this process. Errors are the classes of `dspex.errors`, as a
Supervisor raises them. What a client started ends with it: its calls are cancelled and its sessions, but for shared
ones, dropped. A connection that is lost is made anew: see `client_requests`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Unpack

from ..events import Event, Name, write_log
from ..pools.streams import AsyncStream, Stream
from . import run_files
from .call_request import (
    CallRequestOptions,
    StreamRequestOptions,
    call_request,
    events_request,
    logs_request,
    stream_request,
)
from .client_events import follow
from .client_jobs import ClientJobs
from .client_pool import ANSWERS, ClientPool, find_pool, is_of_programs
from .client_session import ClientSession
from .client_supervision import ClientSupervision
from .protocol import Verb
from .remote_call import RemoteCall
from .request_fields import Fields
from .unreachable import explained

Arguments = dict[str, Any]


def connect(
    path: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    operator: bool = False,
    client: str | None = None,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
    reconnects: bool = True,
    service_lms: bool = True,
) -> Client:
    """Return a client of the supervisor that listens at `path`, or of the one called `name`.

    With neither: $DSPEX_SOCKET, else the supervisor called "default". An `operator` has a place also where max_clients
    are connected; it inspects and changes (status, health, events, resize, stop, ...) but makes no calls.

    `client` is this side's own name: clients of one name share an account (`Client.usage`) and their turns in queues.
    Budgets bound what they use of language models, within what the service's [clients] table allows. With `reconnects`
    a lost connection is made anew. `service_lms=False` leaves programs the language models of this process alone;
    else those of the service go before them, through the service, with its cache, limits and budgets.

    Raises:
        NotRunning: nobody listens there: it says where, and who else runs.
        TooManyClients, ResourceExhausted, ProtocolError: it refuses us, and says why.
        InvalidInput, SettingsError: a name or a budget that cannot be.
    """
    place = run_files.find_socket(path, name)
    with explained(place):
        return Client(
            place,
            operator=operator,
            client=client,
            budget_usd=budget_usd,
            budget_tokens=budget_tokens,
            reconnects=reconnects,
            service_lms=service_lms,
        )


class Client(ClientSupervision, ClientJobs):
    """A supervisor in another process."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        operator: bool = False,
        client: str | None = None,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        reconnects: bool = True,
        service_lms: bool = True,
    ) -> None:
        given = {"name": client, "budget_usd": budget_usd, "budget_tokens": budget_tokens}
        facts = {key: value for key, value in given.items() if value is not None}
        self._reconnected: list[Callable[[], object]] = []
        super().__init__(path, operator=operator, reconnects=reconnects, facts=facts, on_change=self._changed)
        self.supervise(uses_lms=service_lms)

    # -- life --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the connection: calls under way are cancelled there and fail here, own sessions are dropped."""
        self._link.close()
        self.answers.stop()

    def release(self) -> None:
        """`close`, for the process whose default supervisor it was; the service goes on."""
        self.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    @property
    def is_open(self) -> bool:
        """Whether it is connected now."""
        return self._link.is_open

    @property
    def greeting(self) -> dict[str, Any]:
        """What the supervisor reported of itself: client, name, pid, version, kind, timeouts."""
        return self._link.greeting()

    def on_reconnect(self, subscriber: Callable[[], object]) -> Callable[[], None]:
        """Call `subscriber()` each time the connection has been made anew, on its thread; return what ends it."""
        self._reconnected.append(subscriber)
        return lambda: self._reconnected.remove(subscriber) if subscriber in self._reconnected else None

    # -- calls: as those of Supervisor -----------------------------------------------------------------------------

    def call(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any:
        """`Supervisor.call` over there; `shared=True` makes `session` one that all clients may use.

        Raises:
            UnknownName: there is no such option: session, shared, timeout and idempotent are those there are.
            NotRunning, ConnectionLost: the supervisor is gone; before the call was sent, or while it was under way.
        """
        fields = self._with_notes(call_request(pool, command, arguments, **options))
        return self.perform(Verb.CALL, fields, what=f"the call {command!r}", call=self._noted(fields))

    async def acall(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any:
        """`call`, awaited on the running loop. Cancelling the task cancels the call."""
        fields = self._with_notes(call_request(pool, command, arguments, **options))
        return await self.aperform(Verb.CALL, fields, what=f"the call {command!r}", call=self._noted(fields))

    def stream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> Stream:
        """`Supervisor.stream` over there; its options are session, shared and timeout."""
        return self.begin_stream(self._with_notes(stream_request(pool, command, arguments, **options)))

    def astream(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[StreamRequestOptions]
    ) -> AsyncStream:
        """`Supervisor.astream` over there; needs a running event loop."""
        return self.abegin_stream(self._with_notes(stream_request(pool, command, arguments, **options)))

    def session(
        self, pool: str, id: str | None = None, *, durable: bool = False, fresh: bool = False, shared: bool = False
    ) -> ClientSession:
        """`Supervisor.session` over there. Its id is this client's own, unless `shared`."""
        return ClientSession(self, pool, id, durable=durable, fresh=fresh, shared=shared)

    def open_session(self, fields: Fields) -> None:
        """Open a session over there; waits for the service while it is away."""
        self.perform(Verb.OPEN_SESSION, fields, what="opening a session")
        self._known_sessions.opened(fields, self._home(self._link.connection, fields))

    def usage(self) -> dict[str, Any]:
        """Return what the clients of this one's name have used of the service's language models, and their budgets.

        Counted since the service began.
        """
        used: dict[str, Any] = self.ask(Verb.USAGE)
        return used

    # -- looking at it and changing it -----------------------------------------------------------------------------

    def pool(self, name: str) -> ClientPool:
        """Return a pool by name.

        Raises:
            UnknownName: there is none; it lists the near names.
            ForkedSupervisor: this is a forked child of the process that connected.
        """
        self._link.check_own_process()
        return find_pool(self, self.pool_facts, name)

    def events(self, *, follow: bool = False, recent: int | None = None) -> Stream:
        """Return the last events, each {"time", "name", "level", "facts"}; with `follow` also the coming ones."""
        fields = events_request(follow=follow, recent=recent)
        return self._follow(Verb.EVENTS, fields)

    def logs(
        self,
        pool: str | None = None,
        *,
        worker: int | None = None,
        follow: bool = False,
        recent: int | None = None,
    ) -> Stream:
        """Return the last lines of the supervisor's log, as `events`: of one pool, or of its worker of this number.

        Raises:
            UnknownName: there is no such pool.
        """
        return self._follow(Verb.LOGS, logs_request(pool, worker, follow=follow, recent=recent))

    def on_event(self, subscriber: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        """Call `subscriber(event)` on a thread of its own from now on; return what ends it.

        It goes on when the connection has been made anew, and gets "dspex.client.reconnected" then.
        """
        return follow(self, self._link, subscriber)

    def __repr__(self) -> str:
        return f"<client of the supervisor at {self.path}; {'open' if self.is_open else 'closed'}>"

    # ============================================================================================================

    def _changed(self, what: str) -> None:
        """In the connection's thread: it was lost, or made anew."""
        name = Name.CLIENT_RECONNECTED if what == "reconnected" else Name.CLIENT_LOST
        write_log(Event(name, {"path": str(self.path)}))
        if what != "reconnected":
            return
        self.greeted()
        for subscriber in tuple(self._reconnected):
            try:
                subscriber()
            except Exception as error:  # a subscriber's own: the connection's thread goes on
                write_log(Event(Name.CONTROL_HINDERED, {"reason": type(error).__name__, "error": str(error)}))

    def _with_notes(self, fields: Fields) -> Fields:
        """Return a call's fields; in a session, the answer says whether there is state, and of a program what it spent.

        What a program's command asks for comes back here, too.
        """
        if is_of_programs(fields):
            fields = self._with_lms({**fields, "callbacks": ANSWERS, "notes": True})
        return fields if "session" not in fields else {**fields, "notes": True}

    def _noted(self, fields: Fields) -> RemoteCall | None:
        return RemoteCall(str(fields["command"]), self._limit_of(fields)) if "notes" in fields else None
