"""The policy around one LM request, written once for threads and for event loops.

cache -> single flight -> rate limit -> circuit breaker -> send -> check (`response_check`: an error may come as a
success) -> retries (Retry-After, else full jitter, never past the deadline) -> cache. `exchange` is a generator: it
yields what it wants done (`SendRequest`, `Take`, `Sleep`, `Wait`, `StartStream`) and gets the results sent, so it
blocks nowhere itself; the drivers do the waiting, on whichever thread or loop they run.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import LMError, LMTimeoutError, LMTransportError
from ..events import Name
from .cache import Cache, CachedReply
from .dialects.error_classes import with_metadata
from .effects import Effect, Exchange, ExchangeOutcome, Request, SendRequest, Sleep, StartStream, Take, Wait
from .http.http_message import Head, Reply
from .rate_limits import OPEN_S, RateLimits
from .response_check import Live, answer_of, cleaned, usage_said
from .single_flight import STALL_S, FlightSeat, SingleFlight

if TYPE_CHECKING:
    from .record import LM

BACKOFF_S = 0.5
BACKOFF_MOST_S = 30.0
RETRY_AFTER_MOST_S = 600.0  # a provider that names a longer pause has refused, also where there is no deadline
FAIR_S = 5.0  # an endpoint that was given less time than this has not failed when the time is up
# Failures by which an endpoint shows that it is down or drowning; anything else proves that it is there.
_UNANSWERED = frozenset({502, 503, 504, 529})


@dataclass(slots=True)
class ExchangeServices:
    """What the exchanges of one client share."""

    cache: Cache
    flights: SingleFlight[ExchangeOutcome]
    limits: RateLimits
    random: random.Random

    def settle(self, order: Request, seat: FlightSeat[ExchangeOutcome] | None, reply: Reply) -> None:
        """A whole 200 response is there: keep it and give it to the followers."""
        if order.key is not None:
            kept = CachedReply(reply.head.get("content-type"), reply.body)
            self.cache.put(order.key, kept, ttl=order.lm.cache_ttl)
        if seat is not None:
            self.flights.land(seat, ExchangeOutcome(reply=reply, cached=True))


def exchange(services: ExchangeServices, order: Request) -> Exchange:
    """Carry one order out.

    Raises:
        LMTransportError, LMTimeoutError: no answer came.
    """
    if order.key is None:
        return (yield from _attempts(services, order))
    while (kept := _kept(services, order)) is None:
        seat = services.flights.join(order.key)
        if seat.leads:
            return (yield from _lead(services, order, seat))
        if (shared := (yield from _follow(services, order, seat))) is not None:
            return shared
        if seat.leads:
            return (yield from _lead(services, order, seat))
    return kept


def _kept(services: ExchangeServices, order: Request) -> ExchangeOutcome | None:
    """The cache's outcome; an entry that cannot be read (another version's, a damaged disk's) is forgotten."""
    assert order.key is not None
    kept = services.cache.get(order.key)
    if kept is None:
        return None
    head = Head(f"HTTP/1.1 200 OK\r\ncontent-type: {kept.content_type}", 200)
    try:
        reply, answer = answer_of(order, Reply(head, kept.body))
    except LMError:
        services.cache.forget(order.key)
        return None
    return ExchangeOutcome(reply=reply, answer=answer, cached=True)


def _lead(services: ExchangeServices, order: Request, seat: FlightSeat[ExchangeOutcome]) -> Exchange:
    try:
        if (kept := _kept(services, order)) is not None:  # the leader before us landed in between
            services.flights.land(seat, kept)
            return kept
        outcome = yield from _attempts(services, order)
        if outcome.error is not None:
            _share_failure(services, order, seat, outcome)
        elif outcome.live is not None:
            outcome.seat = seat
            seat.hold()
        elif outcome.reply is not None:
            services.settle(order, seat, outcome.reply)
    except LMError as error:
        _share_failure(services, order, seat, ExchangeOutcome(error=error))
        raise
    except BaseException:  # also Ctrl-C between the answer and its landing
        services.flights.leave(seat)
        raise
    return outcome


def _share_failure(
    services: ExchangeServices, order: Request, seat: FlightSeat[ExchangeOutcome], outcome: ExchangeOutcome
) -> None:
    if order.was_cut_short or time.monotonic() >= order.until:
        services.flights.leave(seat)  # our time was over, not theirs
    else:
        outcome.asked_by = order.lm.ref
        services.flights.land(seat, outcome)


def _follow(
    services: ExchangeServices, order: Request, seat: FlightSeat[ExchangeOutcome]
) -> Generator[Effect, Any, ExchangeOutcome | None]:
    """The leader's outcome, or None when the lead is ours now, or its failure concerns another LM's settings or key."""
    can_wait = True
    try:
        while can_wait and not seat.settled and time.monotonic() < order.until:
            slice_end = min(order.until, time.monotonic() + STALL_S)
            can_wait = yield Wait(seat, slice_end if order.stream else order.deadline)
            can_wait = can_wait and not services.flights.is_stalled(seat)
    except BaseException:
        services.flights.leave(seat)
        raise
    shared = seat.outcome
    if shared is None:
        if seat.leads:
            return None
        services.flights.leave(seat)
        if not can_wait:
            return (yield from _alone(services, order))
        raise LMTimeoutError("The same request, under way for another caller, took too long.", model=order.lm.model)
    if shared.error is None:
        assert shared.reply is not None
        reply, answer = answer_of(order, shared.reply)
        return ExchangeOutcome(reply=reply, answer=answer, cached=True)
    if shared.asked_by != order.lm.ref:
        return None
    error = copy.copy(shared.error)  # each caller raises its own: tracebacks are not shared
    if shared.reply is None:
        raise error
    return ExchangeOutcome(reply=shared.reply, error=error, attempts=0)


def _alone(services: ExchangeServices, order: Request) -> Exchange:
    """Ask although somebody else does: waiting for them would be for ever."""
    outcome = yield from _attempts(services, order)
    if outcome.error is None and outcome.reply is not None:
        services.settle(order, None, outcome.reply)
    return outcome


def _attempts(services: ExchangeServices, order: Request) -> Exchange:
    lm = order.lm
    for attempt in range(lm.retries + 1):
        if lm.requests_per_minute is not None:
            yield from _admission(services, order)
        outcome = yield from _attempt(services, order)
        outcome.attempts = attempt + 1 + order.resent
        error = outcome.error
        if error is None:
            return outcome
        pause = _pause(services, error, attempt)
        if attempt == lm.retries or error.retryable != "now":
            break
        if _is_hopeless(order, outcome, pause):
            order.was_cut_short = pause <= RETRY_AFTER_MOST_S
            break
        order.emit(
            Name.LM_RETRIED,
            model=lm.model,
            endpoint=order.target.host,
            attempt=attempt + 1,
            reason=type(error).__name__,
            status=error.status,
            pause_s=pause,
        )
        yield Sleep(pause)
    if outcome.reply is None and outcome.error is not None:
        raise outcome.error
    return outcome


def _is_hopeless(order: Request, outcome: ExchangeOutcome, pause: float) -> bool:
    """Whether a pause before the next attempt would be in vain."""
    if pause > RETRY_AFTER_MOST_S or time.monotonic() + pause >= order.until:
        return True
    return outcome.was_held_back and order.has_alternative


def _attempt(services: ExchangeServices, order: Request) -> Exchange:
    lm = order.lm
    left = order.left()
    if left <= 0:
        raise LMTimeoutError("The deadline passed before the request could be sent.", model=lm.model)
    wait = services.limits.breaker_wait(lm.api_base, time.monotonic())
    if wait:
        message = "The endpoint gave no answer to many requests in a row and is left alone for a moment."
        return ExchangeOutcome(error=_name(lm, LMTransportError(message, retry_after=wait)), was_held_back=True)
    try:
        sent = (yield StartStream(order)) if lm.provider.prefix == "local" else order
        result = yield SendRequest(sent, left, None if order.resent else order.resend)
        if isinstance(result, Reply):
            _note(services, order, result.status not in _UNANSWERED)
            return _judged(order, cleaned(sent, result))
        _note(services, order, True)
        return (yield from _opened(order, Live(sent, result)))
    except (LMTransportError, LMTimeoutError) as error:
        if error.provider is not None:  # a provider's word, which it said inside a stream
            return ExchangeOutcome(error=error)
        if isinstance(error, LMTransportError) or left >= FAIR_S:
            _note(services, order, False)
        return ExchangeOutcome(error=_name(lm, error))


def _judged(order: Request, reply: Reply) -> ExchangeOutcome:
    """A whole response: an answer, or the error that its status or its body says it is."""
    if reply.status >= 300:
        refusal = order.dialect.failure(order.lm, reply.status, reply.body)
        return ExchangeOutcome(reply=reply, error=with_metadata(refusal, reply.head, order.lm))
    try:
        shown, answer = answer_of(order, reply)
    except LMError as error:
        _spend(order, usage_said(order, reply.body))
        return ExchangeOutcome(reply=reply, error=error)
    return ExchangeOutcome(reply=shown, answer=answer)


def _opened(order: Request, live: Live) -> Generator[Effect, Any, ExchangeOutcome]:
    """A stream read until its answer begins: what ends it before that was shown to nobody, and can be tried again."""
    try:
        while not live.open((yield Take(live.parts))):
            pass
    except LMError as error:
        live.stream.close()
        _spend(order, live.usage())
        if isinstance(error, LMTransportError | LMTimeoutError):
            raise
        return ExchangeOutcome(error=error)
    except BaseException:
        live.stream.close()
        raise
    return ExchangeOutcome(live=live)


def _spend(order: Request, usage: Mapping[str, Any]) -> None:
    if usage:
        order.spend(usage)


def _note(services: ExchangeServices, order: Request, answered: bool) -> None:
    """Tell the circuit breaker how an attempt ended."""
    turn = services.limits.note(order.lm.api_base, answered, time.monotonic())
    if turn == "opened":
        order.emit(Name.LM_CIRCUIT_OPENED, model=order.lm.model, endpoint=order.target.host, pause_s=OPEN_S)
    elif turn == "closed":
        order.emit(Name.LM_CIRCUIT_CLOSED, model=order.lm.model, endpoint=order.target.host)


def _admission(services: ExchangeServices, order: Request) -> Generator[Effect, Any, None]:
    """Wait for the endpoint's rate limit; a wait that cannot end in time fails at once."""
    lm = order.lm
    assert lm.requests_per_minute is not None
    now = time.monotonic()
    wait = services.limits.reserve(lm, now)
    if wait <= 0:
        return
    try:
        if order.deadline is not None and now + wait >= order.deadline:
            order.was_cut_short = True
            message = f"requests_per_minute={lm.requests_per_minute:g} leaves no room before the deadline."
            raise LMTimeoutError(message, model=lm.model, retry_after=wait)
        order.emit(Name.LM_LIMITED, model=lm.model, endpoint=order.target.host, pause_s=wait)
        yield Sleep(wait)
    except BaseException:
        services.limits.give_back(lm)
        raise


def _pause(services: ExchangeServices, error: LMError, attempt: int) -> float:
    if error.retry_after is not None:
        return error.retry_after
    return services.random.uniform(0.0, min(BACKOFF_MOST_S, BACKOFF_S * 2**attempt))


def _name(lm: LM, error: LMError) -> LMError:
    """The same error, saying which model it concerns."""
    if error.model is not None:
        return error
    named = type(error)(error.message, model=lm.model, provider=lm.provider.id, retry_after=error.retry_after)
    named.__cause__ = error.__cause__
    return named
