"""`LMClient`: complete, stream and forward. One per process; any thread, any event loop.

Owns the connections, the cache, the single flight, the limits and the usage, so that the parent's own calls and the
workers' share all of them. What is done is written once, in generators of effects; the blocking and the awaited verbs
differ in the driver only. A forked child gets its own connections and locks; cache entries stay. Not covered: prompts
and parsing (`adapters`), what runs where (`programs.options`).
"""

from __future__ import annotations

import functools
import os
import random
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Unpack, cast

from .. import events, spans
from ..errors import LMError, UnknownName
from . import embedded
from .blocking_driver import BlockingDriver
from .cache import Cache
from .call_options import CallOptions, CallPlan
from .completion import Completion, completion_of
from .dialects.dialect import Message
from .effects import Effects
from .exchange_services import ExchangeServices
from .failover import Failover
from .forwarding import Origin, relayed, require_request
from .http.blocking_client import BlockingHttp
from .http.endpoint import Endpoint
from .rate_limits import RateLimits
from .record import LM
from .request import Request
from .request_factory import RequestFactory
from .response import choice, texts
from .single_flight import SingleFlight
from .usage import UsageMeter

if TYPE_CHECKING:
    from .async_driver import AsyncDriver
    from .dialects.embeddings import EmbeddedTexts, Vector
    from .embedding_plan import EmbeddingPlan

LMS_MOST = 10_000  # LMs that workers may name; every call makes its own known again
_UNKNOWN_REF = "No call of this process has named it, or so long ago that it is forgotten."
_clients: weakref.WeakSet[LMClient] = weakref.WeakSet()  # every client must learn of a fork


def close_idle_connections(host: str, port: int) -> None:
    """Close the connections to this address that the process's clients keep for later requests."""
    for client in list(_clients):
        client.close_idle(host, port)


class LMEventListener(Protocol):
    """Receives the client's events: a supervisor's services."""

    def emit(self, name: events.Name, **facts: Any) -> bool:
        """Emit an event of the client; False when nobody listens any more."""
        ...


class LMClient:
    """Calls language models.

    Args:
        cache: The response cache; default: one in memory (10,000 entries, 24 h).
    """

    def __init__(self, *, cache: Cache | None = None) -> None:
        self.usage = UsageMeter()
        self.cache = Cache() if cache is None else cache
        self.is_cache_given = cache is not None
        self._lms: dict[str, LM] = {}
        self._unverified: set[str] = set()
        self._listeners: weakref.WeakSet[Any] = weakref.WeakSet()
        self._embedded = embedded.shared()
        self._start()
        _clients.add(self)

    def register(self, lm: LM) -> str:
        """Make the LM known to `forward`, where workers name it by its ref, which is returned."""
        for one in (lm, *lm.fallbacks):
            self._lms[one.ref] = one
        while len(self._lms) > LMS_MOST:  # records made per request, with a key each: the oldest go
            self._lms.pop(next(iter(self._lms)), None)
        return lm.ref

    def known(self, ref: str) -> LM | None:
        """Return the LM of a ref, if it was registered."""
        return self._lms.get(ref)

    def complete(self, lm: LM, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Completion:
        """Return the model's answer.

        Raises:
            LMError: a subclass for each way it can fail, as in DSPy.
            BudgetExceeded: the budget of an open account is spent.
            InvalidInput: messages that are malformed.
        """
        if (port := lm.port) is not None:
            return cast(Completion, port.complete(self.usage, lm, messages, options))
        return self._blocking.run(self._completion(lm, messages, options))

    async def acomplete(self, lm: LM, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Completion:
        """`complete`, awaited; cancelling the task closes the connection at once."""
        if (port := lm.port) is not None:
            return cast(Completion, await port.acomplete(self.usage, lm, messages, options))
        return await self._async_driver().run(self._completion(lm, messages, options))

    def stream(
        self, lm: LM, messages: Sequence[Message], **options: Unpack[CallOptions]
    ) -> Generator[str | Completion, None, None]:
        """Return the answer's text as it arrives; the last item is the Completion.

        Fails over only before any text came.
        """
        if (port := lm.port) is not None:
            return port.stream(self.usage, lm, messages, options)
        return self._blocking.iterate(self._texts(lm, messages, options))

    def astream(
        self, lm: LM, messages: Sequence[Message], **options: Unpack[CallOptions]
    ) -> AsyncGenerator[str | Completion, None]:
        """`stream`, asynchronously."""
        if (port := lm.port) is not None:
            return port.astream(self.usage, lm, messages, options)
        return self._async_driver().iterate(self._texts(lm, messages, options))

    def embed(self, lm: LM, asked: EmbeddingPlan) -> Sequence[Vector]:
        """Return the vectors of some texts, by one request.

        Raises:
            LMError, BudgetExceeded: as `complete`.
        """
        if (port := lm.port) is not None:
            return port.embed(self.usage, lm, asked)
        return self._blocking.run(self._embedding(lm, asked))

    async def aembed(self, lm: LM, asked: EmbeddingPlan) -> Sequence[Vector]:
        """`embed`, awaited; cancelling the task closes the connection at once."""
        if (port := lm.port) is not None:
            return await port.aembed(self.usage, lm, asked)
        return await self._async_driver().run(self._embedding(lm, asked))

    def forward(
        self, request: Mapping[str, Any], *, deadline: float | None = None, origin: Origin | None = None
    ) -> Generator[dict[str, Any] | bytes, None, None]:
        """Carry out a worker's HTTP request: first {"status", "headers", "cached"}, then the body's parts.

        `request`: {"lm": ref, "method", "url", "headers": [[name, value]], "body": bytes, "stream": bool, "rollout_id",
        "timeout", "cache": bool, "candidate": int, "members": {...}, "is_bare": bool}; `candidate` tells the n requests
        of one call with n > 1 apart; for the last two see `worker_bodies`.
        "has_alternative" says that a fallback can be asked instead, "instead_of" that this is one (with "reason").
        Closing the iterator closes the connection.

        Raises:
            UnknownName: an LM that was not registered.
            LMConfigurationError: a URL or a model that is not the LM's own.
            LMTransportError, LMTimeoutError: no answer came.
            LMError: the provider refused, by a status or inside a 2xx response, or sent no answer.
            BudgetExceeded: the budget of an account that counts it is spent.
        """
        return self._blocking.iterate(self._relayed(request, deadline, origin))

    def aforward(
        self, request: Mapping[str, Any], *, deadline: float | None = None, origin: Origin | None = None
    ) -> AsyncGenerator[dict[str, Any] | bytes, None]:
        """`forward`, asynchronously; cancelling it closes the connection at once."""
        return self._async_driver().iterate(self._relayed(request, deadline, origin))

    def use_cache(self, cache: Cache, *, is_given: bool = True) -> None:
        """Keep answers there from now on; the cache that was in use is closed, and what it holds in a file stays."""
        before, self.cache, self._services.cache = self.cache, cache, cache
        self.is_cache_given = is_given
        if before is not cache:
            before.close()

    def listen(self, listener: LMEventListener) -> None:
        """Send `listener` the events of the parent's own calls, as long as it lives."""
        self._listeners.add(listener)

    def emit(self, name: events.Name, **facts: Any) -> None:
        """Send an event to the listeners; where there are none, it goes to the log from here."""
        received = [listener.emit(name, **facts) for listener in tuple(self._listeners)]
        if not any(received):
            events.write_log(events.Event(name, events.correlated(facts)))

    def close(self) -> None:
        """Close the idle connections of all threads and loops and the embedded servers. It may be used again."""
        self._blocking.http.close()
        if self._async is not None:
            self._async.http.close()
        self._embedded.release(id(self))
        self.cache.close()

    def close_idle(self, host: str, port: int) -> None:
        """Close the idle connections to one address: it serves no longer."""
        self._blocking.http.close_idle(host, port)
        if self._async is not None:
            self._async.http.close_idle(host, port)

    async def aclose(self) -> None:
        """`close`, and wait until this loop's connections are closed."""
        if self._async is not None:
            await self._async.http.aclose()
        self.close()

    def __enter__(self) -> LMClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- what is done, for both drivers ----------------------------------------------------------------------------

    def _completion(self, lm: LM, messages: Sequence[Message], options: CallOptions) -> Effects[Completion]:
        lms = Failover(lm, self.emit)
        while True:
            try:
                plan = CallPlan(lms.lm, options)
                choices = []
                for candidate in range(max(plan.n, 1)):
                    request = self._request(plan, messages, candidate, lms)
                    choices.append((yield from self._seen(request, functools.partial(choice, self._services, request))))
                return completion_of(*choices)
            except LMError as error:
                lms.failed(error)

    def _texts(self, lm: LM, messages: Sequence[Message], options: CallOptions) -> Effects[None]:
        lms = Failover(lm, self.emit)
        while True:
            request: Request | None = None
            try:
                request = self._request(CallPlan(lms.lm, options), messages, 0, lms, stream=True)
                yield from self._seen(request, functools.partial(texts, self._services, request))
                return
            except LMError as error:
                if request is not None and request.was_shown:
                    raise
                lms.failed(error)

    def _embedding(self, lm: LM, asked: EmbeddingPlan) -> Effects[Sequence[Vector]]:
        lms = Failover(lm, self.emit)
        while True:
            try:
                self.usage.check()
                request = self._own(self._requests.embedding(lms.lm, asked), lms)
                made = yield from self._seen(request, functools.partial(choice, self._services, request))
                return cast("EmbeddedTexts", made.answer).vectors
            except LMError as error:
                lms.failed(error)

    def _relayed(self, request: Mapping[str, Any], deadline: float | None, origin: Origin | None) -> Effects[None]:
        """Check a worker's request now; the response comes as the returned generator is run."""
        require_request(request)
        origin = origin or Origin(emit=self.emit)
        lm = origin.lms.get(request["lm"]) or self._registered(request["lm"])
        if request.get("instead_of"):
            reason = str(request.get("reason") or "")
            origin.emit(events.Name.LM_FAILED_OVER, model=str(request["instead_of"]), to=lm.model, reason=reason)
        made = self._requests.forwarded(lm, request, deadline=deadline)
        made.emit = origin.emit
        made.spend = functools.partial(self.usage.add, lm, more=origin.accounts)
        made.has_alternative = bool(request.get("has_alternative"))
        self.usage.check(origin.accounts)
        return self._seen(made, functools.partial(relayed, self._services, made, accounts=origin.accounts))

    def _seen(self, request: Request, carry_out: Callable[[UsageMeter], Effects[Any]]) -> Effects[Any]:
        """Carry out a request, within a span if there are any."""
        if spans.source is None:
            return carry_out(self.usage)
        effects: Effects[Any] = spans.source.lm_request(request.lm, request.body, self.usage, carry_out)
        return effects

    def _request(
        self, plan: CallPlan, messages: Sequence[Message], candidate: int, lms: Failover, *, stream: bool = False
    ) -> Request:
        self.usage.check()
        return self._own(self._requests.native(plan, messages, candidate, stream=stream), lms)

    def _own(self, request: Request, lms: Failover) -> Request:
        request.emit = self.emit
        request.spend = functools.partial(self.usage.add, request.lm)
        request.has_alternative = lms.has_alternative
        return request

    def _registered(self, ref: str) -> LM:
        try:
            return self._lms[ref]
        except KeyError:
            # The refs that there are would be other callers': whoever has one can ask by it, under its key.
            raise UnknownName("LM", str(ref)[:100], (), where="this process", advice=_UNKNOWN_REF) from None

    # -- drivers ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._requests = RequestFactory()
        self._services = ExchangeServices(self.cache, SingleFlight(), RateLimits(), random.Random())
        self._blocking = BlockingDriver(BlockingHttp(self._connecting), self._services.single_flight, self._server_for)
        self._async: AsyncDriver | None = None
        self._making = threading.Lock()

    def _async_driver(self) -> AsyncDriver:
        """Return the driver for event loops, made at first need: asyncio takes as long to import as all the rest."""
        if self._async is None:
            from .async_driver import AsyncDriver
            from .http.async_client import AsyncHttp

            with self._making:
                if self._async is None:
                    single_flight = self._services.single_flight
                    self._async = AsyncDriver(
                        AsyncHttp(self._connecting), single_flight, self._embedded.ready, self._server_for
                    )
        return self._async

    def _connecting(self, target: Endpoint) -> None:
        """Warn once of an endpoint whose certificate is not looked at."""
        if target.tls.verify or target.server_name is None or target.name in self._unverified:
            return
        if len(self._unverified) < LMS_MOST:
            self._unverified.add(target.name)
        self.emit(events.Name.LM_UNVERIFIED, endpoint=target.name)

    def _server_for(self, request: Request) -> Request:
        return self._embedded.routed(request, id(self))

    def _after_fork(self) -> None:
        """In a forked child: the parent's sockets, flights and locks are left alone, not used and not closed."""
        self._left_to_parent = (self._blocking, self._async)
        self.cache.renew_locks()
        self.usage.renew_locks()
        self._start()


def _in_forked_child() -> None:
    embedded.shared().after_fork()
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
