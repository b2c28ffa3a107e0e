"""`LMClient`: complete, stream and forward. One per process; any thread, any event loop.

Owns the connections, the cache, the flights, the limits and the ledger, so that the parent's own calls and the
workers' share all of them. A forked child gets its own connections and locks; cache entries stay. Not covered: prompts
and parsing (the predictor's), what runs where (the router's).
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import weakref
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from .. import events
from ..errors import LMError, UnknownName
from . import embedded
from .blocking_driver import BlockingDriver
from .bodies import aparts, parts
from .cache import Cache
from .call_options import CallOptions, CallPlan
from .dialects.dialect_base import Message
from .effects import Request
from .exchange import ExchangeServices, exchange
from .failover import Failover
from .forwarding import Origin, arelayed, relayed, require_request
from .http.blocking_client import BlockingHttp
from .rate_limits import RateLimits
from .reading import atexts, choice_of, texts
from .record import LM
from .request import RequestFactory
from .response import Choice, Completion, completion_of
from .single_flight import SingleFlight
from .usage import Ledger

if TYPE_CHECKING:
    from .async_driver import AsyncDriver

LMS_MOST = 10_000  # LMs that workers may name; every call makes its own known again
_clients: weakref.WeakSet[LMClient] = weakref.WeakSet()  # every client must hear of a fork


class EventListener(Protocol):
    """Who hears of the client's events: a supervisor's services."""

    def tell(self, name: events.Name, **facts: Any) -> bool:
        """Take an event; False when nobody is there any more."""


class LMClient:
    """Calls language models.

    Args:
        cache: The response cache; default: one in memory (10,000 entries, 24 h).
    """

    def __init__(self, *, cache: Cache | None = None) -> None:
        self.ledger = Ledger()
        self.cache = Cache() if cache is None else cache
        self._lms: dict[str, LM] = {}
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

    def complete(self, lm: LM, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Completion:
        """The model's answer.

        Raises:
            LMError: a subclass for each way it can fail, as in DSPy.
            BudgetExceeded: the budget of an open account is spent.
            InvalidInput: messages that are malformed.
        """
        lms = Failover(lm, self.emit)
        for one in lms:
            try:
                call = CallPlan(one, options)
                first = self._choice(call, messages, 0, lms)
                if call.n == 1:
                    return completion_of(first)
                rest = [self._choice(call, messages, i, lms) for i in range(1, call.n)]
                return completion_of(first, *rest)
            except LMError as error:
                lms.failed(error)
        raise lms.exhausted()

    async def acomplete(self, lm: LM, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Completion:
        """`complete`, awaited; cancelling the task closes the connection at once."""
        lms = Failover(lm, self.emit)
        for one in lms:
            try:
                call = CallPlan(one, options)
                first = await self._achoice(call, messages, 0, lms)
                if call.n == 1:
                    return completion_of(first)
                rest = [await self._achoice(call, messages, i, lms) for i in range(1, call.n)]
                return completion_of(first, *rest)
            except LMError as error:
                lms.failed(error)
        raise lms.exhausted()

    def stream(
        self, lm: LM, messages: Sequence[Message], **options: Unpack[CallOptions]
    ) -> Generator[str | Completion, None, None]:
        """The answer's text as it arrives; the last item is the Completion. Fails over only before any text came."""
        lms = Failover(lm, self.emit)
        for one in lms:
            has_begun = False
            try:
                with contextlib.closing(self._texts(CallPlan(one, options), messages, lms)) as items:
                    for item in items:
                        has_begun = True
                        yield item
                return
            except LMError as error:
                if has_begun:
                    raise
                lms.failed(error)

    async def astream(
        self, lm: LM, messages: Sequence[Message], **options: Unpack[CallOptions]
    ) -> AsyncGenerator[str | Completion, None]:
        """`stream`, asynchronously."""
        lms = Failover(lm, self.emit)
        for one in lms:
            has_begun = False
            try:
                async with contextlib.aclosing(self._atexts(CallPlan(one, options), messages, lms)) as items:
                    async for item in items:
                        has_begun = True
                        yield item
                return
            except LMError as error:
                if has_begun:
                    raise
                lms.failed(error)

    def forward(
        self, request: Mapping[str, Any], *, deadline: float | None = None, origin: Origin | None = None
    ) -> Generator[dict[str, Any] | bytes, None, None]:
        """A worker's HTTP request, carried out: first {"status", "headers", "cached"}, then the body's parts.

        `request`: {"lm": ref, "method", "url", "headers": [[name, value]], "body": bytes, "stream": bool, "rollout_id",
        "timeout", "cache": bool, "candidate": int}; `candidate` tells the n requests of one call with n > 1 apart.
        "has_alternative" says that a fallback can be asked instead, "instead_of" that this is one (with "reason").
        A refusal by status is a response like any other. Closing the iterator closes the connection.

        Raises:
            UnknownName: an LM that was not registered.
            LMConfigurationError: a URL or a model that is not the LM's own.
            LMTransportError, LMTimeoutError: no answer came.
            LMError: the provider refused inside a 2xx response, or sent no answer.
            BudgetExceeded: the budget of an account that counts it is spent.
        """
        order, origin = self._forwarded(request, deadline, origin)
        return relayed(parts(self._services, self._blocking, order), order, self.ledger, origin.accounts)

    def aforward(
        self, request: Mapping[str, Any], *, deadline: float | None = None, origin: Origin | None = None
    ) -> AsyncGenerator[dict[str, Any] | bytes, None]:
        """`forward`, asynchronously; cancelling it closes the connection at once."""
        order, origin = self._forwarded(request, deadline, origin)
        return arelayed(aparts(self._services, self._looping(), order), order, self.ledger, origin.accounts)

    def listen(self, listener: EventListener) -> None:
        """Tell `listener` the events of the parent's own calls, as long as it lives."""
        self._listeners.add(listener)

    def emit(self, name: events.Name, **facts: Any) -> None:
        """Tell the listeners; where there are none, the event goes to the log from here."""
        told = [listener.tell(name, **facts) for listener in tuple(self._listeners)]
        if not any(told):
            events.write_log(events.Event(name, facts))

    def close(self) -> None:
        """Close the idle connections of all threads and loops and the embedded servers. It may be used again."""
        self._blocking.http.close()
        if self._loop is not None:
            self._loop.http.close()
        self._embedded.release(id(self))
        self.cache.close()

    async def aclose(self) -> None:
        """`close`, and wait until this loop's connections are closed."""
        if self._loop is not None:
            await self._loop.http.aclose()
        self.close()

    def __enter__(self) -> LMClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _start(self) -> None:
        self._orders = RequestFactory()
        self._services = ExchangeServices(self.cache, SingleFlight(), RateLimits(), random.Random())
        self._blocking = BlockingDriver(BlockingHttp(), self._services.flights, self._server_for)
        self._loop: AsyncDriver | None = None
        self._making = threading.Lock()

    def _looping(self) -> AsyncDriver:
        """Made when the first event loop calls: asyncio takes as long to import as all else that a thread needs."""
        if self._loop is None:
            from .async_driver import AsyncDriver
            from .http.async_client import AsyncHttp

            with self._making:
                if self._loop is None:
                    flights = self._services.flights
                    self._loop = AsyncDriver(AsyncHttp(), flights, self._embedded.ready, self._server_for)
        return self._loop

    def _after_fork(self) -> None:
        """In a forked child: the parent's sockets, flights and locks are left alone, not used and not closed."""
        self._left_to_parent = (self._blocking, self._loop)
        self.cache.forget_locks()
        self.ledger.forget_locks()
        self._start()

    def _server_for(self, order: Request) -> Request:
        return self._embedded.order(order, id(self))

    def _order(
        self, call: CallPlan, messages: Sequence[Message], candidate: int, lms: Failover, *, stream: bool = False
    ) -> Request:
        self.ledger.check()
        order = self._orders.native(call, messages, candidate, stream=stream)
        order.emit = self.emit
        order.spend = functools.partial(self.ledger.add, order.lm)
        order.has_alternative = not lms.is_last
        return order

    def _forwarded(
        self, request: Mapping[str, Any], deadline: float | None, origin: Origin | None
    ) -> tuple[Request, Origin]:
        require_request(request)
        lm = self._known(request["lm"])
        origin = origin or Origin(emit=self.emit)
        if request.get("instead_of"):
            reason = str(request.get("reason") or "")
            origin.emit(events.Name.LM_FAILED_OVER, model=str(request["instead_of"]), to=lm.model, reason=reason)
        order = self._orders.forwarded(lm, request, deadline=deadline)
        order.emit = origin.emit
        order.spend = functools.partial(self.ledger.add, lm, more=origin.accounts)
        order.has_alternative = bool(request.get("has_alternative"))
        self.ledger.check(origin.accounts)
        return order, origin

    def _known(self, ref: str) -> LM:
        try:
            return self._lms[ref]
        except KeyError:
            raise UnknownName("LM", str(ref), self._lms, where="this process") from None

    def _choice(self, call: CallPlan, messages: Sequence[Message], candidate: int, lms: Failover) -> Choice:
        order = self._order(call, messages, candidate, lms)
        outcome = self._blocking.run(exchange(self._services, order))
        return choice_of(order, outcome, self.ledger)

    async def _achoice(self, call: CallPlan, messages: Sequence[Message], candidate: int, lms: Failover) -> Choice:
        order = self._order(call, messages, candidate, lms)
        outcome = await self._looping().run(exchange(self._services, order))
        return choice_of(order, outcome, self.ledger)

    def _texts(
        self, call: CallPlan, messages: Sequence[Message], lms: Failover
    ) -> Generator[str | Completion, None, None]:
        """One LM's stream."""
        order = self._order(call, messages, 0, lms, stream=True)
        return texts(parts(self._services, self._blocking, order), order, self.ledger)

    def _atexts(
        self, call: CallPlan, messages: Sequence[Message], lms: Failover
    ) -> AsyncGenerator[str | Completion, None]:
        order = self._order(call, messages, 0, lms, stream=True)
        return atexts(aparts(self._services, self._looping(), order), order, self.ledger)


def _in_forked_child() -> None:
    embedded.shared().forget()
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
