"""`LMClient`: complete, stream and forward. One per supervisor; any thread, any event loop.

Owns the connections, the cache, the flights, the limits and the ledger, so that the parent's own calls and the
workers' share all of them. A forked child gets its own connections and locks; cache entries stay. Not covered: prompts
and parsing (the predictor's), what runs where (the router's).
"""

from __future__ import annotations

import contextlib
import os
import random
import weakref
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any

from dspex.errors import (
    LMAuthError,
    LMBillingError,
    LMError,
    LMUnsupportedModelError,
    UnknownName,
)
from dspex.inprocess.cache import Cache
from dspex.inprocess.lm import embedded
from dspex.inprocess.lm.completion import Choice, Completion, completion_of
from dspex.inprocess.lm.dialects import options as generation
from dspex.inprocess.lm.dialects.answer import Answer, Message
from dspex.inprocess.lm.drivers import BlockingDriver, LoopDriver
from dspex.inprocess.lm.exchange import Order, Outcome, Services, exchange
from dspex.inprocess.lm.flights import Flights
from dspex.inprocess.lm.http.blocking import BlockingHttp
from dspex.inprocess.lm.http.loop import LoopHttp
from dspex.inprocess.lm.http.message import Reply
from dspex.inprocess.lm.ledger import Ledger
from dspex.inprocess.lm.limits import Limits
from dspex.inprocess.lm.orders import Orders
from dspex.inprocess.lm.record import LM
from dspex.inprocess.lm.redaction import redact

# Failures after which another LM may do better. Not: a request that is wrong in itself.
_PASSED_TO_FALLBACK = (LMAuthError, LMBillingError, LMUnsupportedModelError)
_clients: weakref.WeakSet[LMClient] = weakref.WeakSet()  # every client must hear of a fork


class LMClient:
    """Calls language models.

    Args:
        cache: The response cache; default: one in memory (10,000 entries, 24 h).
    """

    def __init__(self, *, cache: Cache | None = None) -> None:
        self.ledger = Ledger()
        self.cache = Cache() if cache is None else cache
        self._lms: dict[str, LM] = {}
        self._embedded = embedded.shared()
        self._orders = Orders()
        self._start()
        _clients.add(self)

    def register(self, lm: LM) -> str:
        """Make the LM known to `forward`, where workers name it by its ref, which is returned."""
        self._lms[lm.ref] = lm
        for fallback in lm.fallbacks:
            self._lms[fallback.ref] = fallback
        return lm.ref

    def complete(
        self,
        lm: LM,
        messages: Sequence[Message],
        *,
        config: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rollout_id: int | None = None,
        deadline: float | None = None,
    ) -> Completion:
        """The model's answer. `config` overrides the LM's generation options, `n` and `cache`.

        Raises:
            LMError: a subclass for each way it can fail, as in DSPy.
            BudgetExceeded: an open scope's budget is spent.
            InvalidInput: messages that are malformed.
        """
        failed: LMError | None = None
        for one in (lm, *lm.fallbacks):
            try:
                call = _Call(one, config, response_format, tools, rollout_id)
                first = self._choice(call, messages, 0, deadline)
                if call.n == 1:
                    return completion_of(first)
                rest = [self._choice(call, messages, i, deadline) for i in range(1, call.n)]
                return completion_of(first, *rest)
            except LMError as error:
                failed = _unless_final(error, failed)
        assert failed is not None
        raise failed

    async def acomplete(
        self,
        lm: LM,
        messages: Sequence[Message],
        *,
        config: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rollout_id: int | None = None,
        deadline: float | None = None,
    ) -> Completion:
        """`complete`, awaited; cancelling the task closes the connection at once."""
        failed: LMError | None = None
        for one in (lm, *lm.fallbacks):
            try:
                call = _Call(one, config, response_format, tools, rollout_id)
                first = await self._achoice(call, messages, 0, deadline)
                if call.n == 1:
                    return completion_of(first)
                rest = [await self._achoice(call, messages, i, deadline) for i in range(1, call.n)]
                return completion_of(first, *rest)
            except LMError as error:
                failed = _unless_final(error, failed)
        assert failed is not None
        raise failed

    def stream(
        self,
        lm: LM,
        messages: Sequence[Message],
        *,
        config: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rollout_id: int | None = None,
        deadline: float | None = None,
    ) -> Generator[str | Completion, None, None]:
        """The answer's text as it arrives; the last item is the Completion. Fails over only before any text came."""
        call = _Call(lm, config, response_format, tools, rollout_id)
        order = self._order(call, messages, 0, deadline, stream=True)
        reader = order.dialect.reader(lm)
        with contextlib.closing(self._body(order)) as parts:
            outcome = next(parts)
            assert isinstance(outcome, Outcome)
            _raise_refusal(outcome)
            for part in parts:
                assert isinstance(part, bytes)
                yield from reader.feed(part)
        yield completion_of(self._account(lm, reader.finish(), outcome))

    async def astream(
        self,
        lm: LM,
        messages: Sequence[Message],
        *,
        config: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        rollout_id: int | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[str | Completion, None]:
        """`stream`, asynchronously."""
        call = _Call(lm, config, response_format, tools, rollout_id)
        order = self._order(call, messages, 0, deadline, stream=True)
        reader = order.dialect.reader(lm)
        async with contextlib.aclosing(self._abody(order)) as parts:
            outcome = await anext(parts)
            assert isinstance(outcome, Outcome)
            _raise_refusal(outcome)
            async for part in parts:
                assert isinstance(part, bytes)
                for text in reader.feed(part):
                    yield text
        yield completion_of(self._account(lm, reader.finish(), outcome))

    def forward(
        self, request: Mapping[str, Any], *, deadline: float | None = None
    ) -> Generator[dict[str, Any] | bytes, None, None]:
        """A worker's HTTP request, carried out: first {"status", "headers", "cached"}, then the body's parts.

        `request`: {"lm": ref, "method", "url", "headers": [[name, value]], "body": bytes, "stream": bool, "rollout_id",
        "timeout", "cache": bool, "candidate": int}; `candidate` tells the n requests of one call with n > 1 apart.
        A refusal by the provider is a response like any other. Closing the iterator closes the connection.

        Raises:
            UnknownName: an LM that was not registered.
            LMConfigurationError: a URL that is not the LM's own.
            LMTransportError, LMTimeoutError: no answer came.
        """
        order = self._orders.forwarded(self._known(request["lm"]), request, deadline=deadline)
        self.ledger.check()
        with contextlib.closing(self._body(order)) as parts:
            outcome = next(parts)
            assert isinstance(outcome, Outcome)
            meter = _Meter(self.ledger, order, outcome)
            head = _head_of(outcome)
            yield head
            for part in parts:
                assert isinstance(part, bytes)
                meter.feed(part)
                yield part if head["status"] < 400 else _without_keys(part, order.lm)
        meter.close()

    async def aforward(
        self, request: Mapping[str, Any], *, deadline: float | None = None
    ) -> AsyncGenerator[dict[str, Any] | bytes, None]:
        """`forward`, asynchronously; cancelling it closes the connection at once."""
        order = self._orders.forwarded(self._known(request["lm"]), request, deadline=deadline)
        self.ledger.check()
        async with contextlib.aclosing(self._abody(order)) as parts:
            outcome = await anext(parts)
            assert isinstance(outcome, Outcome)
            meter = _Meter(self.ledger, order, outcome)
            head = _head_of(outcome)
            yield head
            async for part in parts:
                assert isinstance(part, bytes)
                meter.feed(part)
                yield part if head["status"] < 400 else _without_keys(part, order.lm)
        meter.close()

    def close(self) -> None:
        """Close the idle connections of all threads and loops and the embedded servers. It may be used again."""
        self._blocking.http.close()
        self._loop.http.close()
        self._embedded.release(id(self))
        self.cache.close()

    async def aclose(self) -> None:
        """`close`, and wait until this loop's connections are closed."""
        await self._loop.http.aclose()
        self.close()

    def __enter__(self) -> LMClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _start(self) -> None:
        flights: Flights[Outcome] = Flights()
        self._services = Services(self.cache, flights, Limits(), random.Random())
        self._blocking = BlockingDriver(BlockingHttp(), flights, self._server_for)
        self._loop = LoopDriver(LoopHttp(), flights, self._embedded.ready, self._server_for)

    def _after_fork(self) -> None:
        """In a forked child: the parent's sockets, flights and locks are left alone, not used and not closed."""
        self._left_to_parent = (self._blocking.http, self._loop.http)
        self.cache.forget_locks()
        self.ledger.forget_locks()
        self._start()

    def _server_for(self, order: Order) -> Order:
        return self._embedded.order(order, id(self))

    def _known(self, ref: str) -> LM:
        try:
            return self._lms[ref]
        except KeyError:
            raise UnknownName("LM", str(ref), self._lms, where="this process") from None

    def _order(
        self,
        call: _Call,
        messages: Sequence[Message],
        candidate: int,
        deadline: float | None,
        *,
        stream: bool = False,
    ) -> Order:
        self.ledger.check()
        return self._orders.native(
            call.lm,
            messages,
            call.options,
            stream=stream,
            cache=call.cache,
            rollout_id=call.rollout_id,
            candidate=candidate,
            deadline=deadline,
        )

    def _choice(self, call: _Call, messages: Sequence[Message], candidate: int, deadline: float | None) -> Choice:
        order = self._order(call, messages, candidate, deadline)
        outcome = self._blocking.run(exchange(self._services, order))
        return self._account(call.lm, _answer(order, outcome), outcome)

    async def _achoice(
        self, call: _Call, messages: Sequence[Message], candidate: int, deadline: float | None
    ) -> Choice:
        order = self._order(call, messages, candidate, deadline)
        outcome = await self._loop.run(exchange(self._services, order))
        return self._account(call.lm, _answer(order, outcome), outcome)

    def _account(self, lm: LM, answer: Answer, outcome: Outcome) -> Choice:
        cost = 0.0 if outcome.cached else self.ledger.add(lm, answer.usage)
        return Choice(answer, cost, outcome.cached, outcome.attempts)

    def _body(self, order: Order) -> Generator[Outcome | bytes, None, None]:
        """The outcome, then the body's parts; a live body is kept in the cache once it is whole."""
        outcome = self._blocking.run(exchange(self._services, order))
        if outcome.stream is None:
            yield outcome
            yield outcome.reply.body if outcome.reply else b""
            return
        stream: Any = outcome.stream
        kept: list[bytes] | None = [] if outcome.seat is not None else None
        try:
            yield outcome
            for part in stream:
                if kept is not None:
                    kept.append(part)
                yield part
        except BaseException:
            stream.close()
            self._give_up(outcome)
            raise
        self._keep(order, outcome, stream.head, kept)

    async def _abody(self, order: Order) -> AsyncGenerator[Outcome | bytes, None]:
        outcome = await self._loop.run(exchange(self._services, order))
        if outcome.stream is None:
            yield outcome
            yield outcome.reply.body if outcome.reply else b""
            return
        stream: Any = outcome.stream
        kept: list[bytes] | None = [] if outcome.seat is not None else None
        try:
            yield outcome
            async for part in stream:
                if kept is not None:
                    kept.append(part)
                yield part
        except BaseException:
            stream.close()
            self._give_up(outcome)
            raise
        self._keep(order, outcome, stream.head, kept)

    def _keep(self, order: Order, outcome: Outcome, head: Any, kept: list[bytes] | None) -> None:
        if kept is not None:
            self._services.settle(order, outcome.seat, Reply(head, b"".join(kept)))

    def _give_up(self, outcome: Outcome) -> None:
        if outcome.seat is not None:
            self._services.flights.leave(outcome.seat)


class _Call:
    """A call's options merged with its LM's: what travels, and what decides here."""

    __slots__ = ("cache", "lm", "n", "options", "rollout_id")

    def __init__(
        self,
        lm: LM,
        config: Mapping[str, Any] | None,
        response_format: Mapping[str, Any] | None,
        tools: Sequence[Mapping[str, Any]] | None,
        rollout_id: int | None,
    ) -> None:
        self.lm = lm
        self.n = lm.n
        self.cache = lm.cache
        self.rollout_id = rollout_id
        self.options = options = lm.options()
        if config:
            options.update(config)
            self._take_local(options)
        if response_format is not None:
            options["response_format"] = response_format
        if tools:
            options["tools"] = tools
        if self.n > 1 and (options.get("temperature") or 0.0) <= 0.15:
            options["temperature"] = 0.7  # several equal answers help nobody (DSPy, predict/predict.py)

    def _take_local(self, options: dict[str, Any]) -> None:
        for name in generation.LOCAL:
            value = options.pop(name, None)
            if value is None:
                continue
            if name == "cache":
                self.cache = bool(value)
            elif name == "rollout_id":
                self.rollout_id = int(value)
            else:
                self.n = int(value)
        for name in [name for name, value in options.items() if value is None]:
            del options[name]


class _Meter:
    """Counts the usage of a forwarded response as its bytes pass by."""

    def __init__(self, ledger: Ledger, order: Order, outcome: Outcome) -> None:
        self._ledger = ledger
        self._order = order
        self._reader = order.dialect.reader(order.lm) if order.stream else None
        self._parts: list[bytes] = []
        self._counts = not outcome.cached and outcome.error is None

    def feed(self, part: bytes) -> None:
        if not self._counts:
            return
        if self._reader is None:
            self._parts.append(part)
            return
        try:
            self._reader.feed(part)
        except (LMError, TypeError, ValueError, KeyError, AttributeError):
            self._counts = False  # the worker reads the same bytes and says what is wrong with them

    def close(self) -> None:
        if not self._counts:
            return
        lm = self._order.lm
        try:
            reader = self._reader
            usage = reader.usage if reader else self._order.dialect.answer(lm, b"".join(self._parts)).usage
        except (LMError, TypeError, ValueError, KeyError, AttributeError):
            return
        self._ledger.add(lm, usage)


def _answer(order: Order, outcome: Outcome) -> Answer:
    _raise_refusal(outcome)
    assert outcome.reply is not None
    return order.dialect.answer(order.lm, outcome.reply.body)


def _raise_refusal(outcome: Outcome) -> None:
    if outcome.error is not None:
        raise outcome.error


def _without_keys(part: bytes, lm: LM) -> bytes:
    """A refusal's body as a worker may see it: providers quote the key that they refuse (RULES X3)."""
    text = part.decode("utf-8", "surrogateescape")
    return redact(text, lm.api_key).encode("utf-8", "surrogateescape")


def _head_of(outcome: Outcome) -> dict[str, Any]:
    live = outcome.stream if outcome.stream is not None else outcome.reply
    assert live is not None
    source = live.head
    hidden = ("transfer-encoding", "content-length", "connection", "set-cookie")
    headers = [[name, value] for name, value in source.headers if name not in hidden]
    return {"status": source.status, "headers": headers, "cached": outcome.cached}


def _unless_final(error: LMError, earlier: LMError | None) -> LMError:
    """The first error, when a fallback may be tried; raises it when not."""
    if error.retryable != "now" and not isinstance(error, _PASSED_TO_FALLBACK):
        raise error
    return earlier or error


def _in_forked_child() -> None:
    embedded.shared().forget()
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
