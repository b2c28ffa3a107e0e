"""What programs ask of their supervisor, answered by a client: pools, language models, callbacks, budgets.

It stands where a `Supervisor` stands: `supervisor=client`, `dspex.configure(supervisor=client)`. Nothing of it starts
or stops the service.
"""

from __future__ import annotations

import time
from typing import Any, Final, Self, cast

from ..errors import WorkerBootError
from ..events import Event, Name, write_log
from ..lm.named_lms import NO_LMS, NamedLMs
from ..pools.budgets import HostServices, PoolBudgets
from ..pools.callback_handlers import CallbackHandlers
from ..pools.callbacks import Handler
from ..pools.streams import AsyncStream, Stream
from .client_lms import ServicePort, served_lms
from .client_pool import Cancel
from .client_requests import ClientRequests
from .protocol import Verb
from .remote_call import RemoteCall
from .request_fields import Fields
from .served_pools import ServedPoolFacts, ServedSettings

READY_PATIENCE: Final = 60.0  # seconds
READY_LOOK: Final = 0.05  # seconds between looks


class ClientSupervision(ClientRequests):
    """A client as the supervisor of programs."""

    cache = None  # the service's is the service's to set
    takes_code = False  # nothing is sent by value

    def supervise(self, *, uses_lms: bool) -> None:
        """Begin: the client is connected."""
        self.config = ServedSettings(f"the service at {self.path}")
        self.budgets = PoolBudgets()
        self._port = ServicePort(self)
        self._uses_lms = uses_lms
        self.greeted()

    def greeted(self) -> None:
        """Take what the service says of itself: at each connection."""
        told = self._link.greeting()
        self._timeouts = dict(told.get("timeouts", {}))
        facts = told.get("pools") or {}
        self.pool_facts = {
            name: ServedPoolFacts.of(name, facts.get(name, {"call_timeout": timeout}))
            for name, timeout in self._timeouts.items()
        }
        self.service_lms: NamedLMs = served_lms(self._port, told.get("lms"))

    @property
    def lms(self) -> NamedLMs:
        """The language models that programs find by name here: the service's, if they are to be used."""
        return self.service_lms if self._uses_lms else NO_LMS

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the service's pools."""
        return tuple(self._timeouts)

    # -- as `Supervisor` -------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Return this client, if it can be used.

        Raises:
            ForkedSupervisor: this is a forked child of the process that connected.
            NotRunning: it was closed.
        """
        self.check_usable()
        return self

    def wait_ready(self, timeout: float | None = None) -> Self:
        """Wait until every pool of the service has a ready worker; `timeout` None means a minute.

        Raises:
            WorkerBootError: one has none.
            NotRunning: the service is gone.
        """
        limit = READY_PATIENCE if timeout is None else timeout
        deadline = time.monotonic() + limit
        while unready := {name: row for name, row in self.health().items() if not row["is_ready"]}:
            name, row = next(iter(unready.items()))
            if time.monotonic() >= deadline:
                raise WorkerBootError(
                    f"Pool {name!r} of the service has no ready worker after {limit:g} s: {row['reason']}",
                    pool=name,
                    stderr_tail="",
                )
            time.sleep(READY_LOOK)
        return self

    def check_usable(self) -> None:
        """Raise ForkedSupervisor in a forked child, NotRunning if the client was closed."""
        self._link.check_own_process()
        if self._link.is_closed:
            self._link.connection.check_usable()

    @property
    def is_running(self) -> bool:
        """Whether it is connected, or will be again."""
        return not (self._link.is_closed or self._link.is_forked)

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child of the process that connected."""
        return self._link.is_forked

    @property
    def handlers(self) -> CallbackHandlers:
        """What answers the callbacks that come back to this client."""
        return self.answers.handlers

    def register(self, name: str, handler: Handler) -> None:
        """Answer the callbacks `name` that come back to this client with `handler(request)`."""
        self.answers.register(name, handler)

    def emit(self, name: Name, /, **facts: Any) -> None:
        """Log an event of this process."""
        write_log(Event(name, facts))

    @property
    def services(self) -> HostServices | None:
        """The services of the layer above, once it is needed."""
        return self.budgets.services

    @services.setter
    def services(self, services: HostServices) -> None:
        self.budgets.services = services

    # -- programs' calls: see `ClientPool` ---------------------------------------------------------------------------

    def make(self, fields: Fields, cancel: Cancel | None = None) -> RemoteCall:
        """Make a program's call and return it, ended; blocks."""
        fields, call = self._with_lms(fields), RemoteCall(str(fields["command"]), self._limit_of(fields))
        what = f"the call {fields['command']!r}"
        call.value = self.perform(Verb.CALL, fields, what=what, call=call, cancel=cancel)
        return call

    async def amake(self, fields: Fields) -> RemoteCall:
        """`make`, awaited."""
        fields, call = self._with_lms(fields), RemoteCall(str(fields["command"]), self._limit_of(fields))
        call.value = await self.aperform(Verb.CALL, fields, what=f"the call {fields['command']!r}", call=call)
        return call

    def begin_stream(self, fields: Fields) -> Stream:
        """Start a streaming call, to be read by a thread."""
        return cast(Stream, self._streamed(fields, is_async=False))

    def abegin_stream(self, fields: Fields) -> AsyncStream:
        """Start a streaming call, to be read by a coroutine of the running loop."""
        return cast(AsyncStream, self._streamed(fields, is_async=True))

    # -- the service's language models, for native programs: see `ServicePort` ---------------------------------------

    def ask_lm(self, verb: str, fields: Fields, *, wait: float) -> Any:
        """Ask one, and return its answer."""
        return self.perform(verb, {**fields, "idempotent": True}, what="a language model's answer")

    async def aask_lm(self, verb: str, fields: Fields, *, wait: float) -> Any:
        """`ask_lm`, awaited."""
        return await self.aperform(verb, {**fields, "idempotent": True}, what="a language model's answer")

    def stream_lm(self, fields: Fields, *, wait: float) -> Stream:
        """Ask one, and return its answer as it comes."""
        return cast(Stream, self.started(Verb.STREAM_LM, fields, pool="service", command="stream", limit=wait))

    async def astream_lm(self, fields: Fields, *, wait: float) -> AsyncStream:
        """`stream_lm`, for a coroutine."""
        await self._link.aready(wait)
        made = self.started(Verb.STREAM_LM, fields, pool="service", command="stream", limit=wait, is_async=True)
        return cast(AsyncStream, made)

    # ==============================================================================================================

    def _streamed(self, fields: Fields, *, is_async: bool) -> Stream | AsyncStream:
        pool, command = str(fields["pool"]), str(fields["command"])
        limit = self._limit_of(fields)
        return self.started(
            Verb.STREAM, self._with_lms(fields), pool=pool, command=command, limit=limit, is_async=is_async
        )

    def _with_lms(self, fields: Fields) -> Fields:
        """Return a call's fields with the refs of this process's own language models, whose requests come back."""
        if "callbacks" not in fields:
            return fields
        refs, records = set(), [fields["arguments"]]
        while records:
            record = records.pop()
            for name, value in record.items():
                if name in _OF_USERS:
                    continue
                if isinstance(value, dict):
                    records.append(value)
                elif isinstance(value, list):
                    records.extend(item for item in value if isinstance(item, dict))
                elif name == "ref" and isinstance(value, str) and "dialect" in record:
                    refs.add(value)
        own = sorted(ref for ref in refs if not ref.startswith("service:"))
        lm = fields["arguments"].get("lm")
        if isinstance(lm, dict) and lm.get("direct") and str(lm.get("ref", "")).startswith("service:"):
            name = str(lm["ref"]).removeprefix("service:").partition("/")[0]
            return {**fields, "lm": name, "own_lms": own}
        return {**fields, "own_lms": own} if own else fields


_OF_USERS: Final = frozenset({"inputs", "trainset", "valset", "state", "demos", "carried", "config"})
