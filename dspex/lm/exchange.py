"""Carry out one LM request: cache, single flight, retries. Written once for threads and event loops.

cache -> single flight -> attempts (`retries`) -> cache. `exchange` is a generator of effects (see `effects`), so it
blocks nowhere itself; the drivers do the waiting, on whichever thread or loop they run.
"""

from __future__ import annotations

import copy
import functools
import time

from ..errors import LMError, LMTimeoutError
from .dialects.answer import Answer
from .effects import Effects, Exchange, ExchangeOutcome, Read, Wait
from .exchange_services import ExchangeServices
from .http.http_message import Head, Reply
from .request import Request
from .response_check import answer_of
from .retries import attempts
from .single_flight import STALL_S, FlightMember
from .worker_reading import is_quick


def exchange(services: ExchangeServices, request: Request) -> Exchange:
    """Carry out one request.

    Raises:
        LMTransportError, LMTimeoutError: no answer came.
    """
    if request.key is None:
        return (yield from attempts(services, request))
    while (kept := (yield from _kept(services, request))) is None:
        member = services.single_flight.join(request.key)
        if member.leads:
            return (yield from _lead(services, request, member))
        if (shared := (yield from _follow(services, request, member))) is not None:
            return shared
        if member.leads:
            return (yield from _lead(services, request, member))
    return kept


def _kept(services: ExchangeServices, request: Request) -> Effects[ExchangeOutcome | None]:
    """Return the cache's outcome; an entry that cannot be read (another version's, a damaged disk's) is deleted."""
    assert request.key is not None
    kept = services.cache.get(request.key)
    if kept is None:
        return None
    head = Head(f"HTTP/1.1 200 OK\r\ncontent-type: {kept.content_type}", 200)
    try:
        reply, answer = yield from _answer_of(request, Reply(head, kept.body))
    except LMError:
        services.cache.delete(request.key)
        return None
    return ExchangeOutcome(reply=reply, answer=answer, cached=True)


def _answer_of(request: Request, reply: Reply) -> Effects[tuple[Reply, Answer]]:
    if not request.for_worker or is_quick(request, reply.body):
        return answer_of(request, reply)
    found: tuple[Reply, Answer] = yield Read(functools.partial(answer_of, request, reply))
    return found


def _lead(services: ExchangeServices, request: Request, member: FlightMember[ExchangeOutcome]) -> Exchange:
    try:
        if (kept := (yield from _kept(services, request))) is not None:  # the leader before us landed in between
            services.single_flight.land(member, kept)
            return kept
        outcome = yield from attempts(services, request)
        if outcome.error is not None:
            _share_failure(services, request, member, outcome)
        elif outcome.live is not None:
            outcome.member = member
            member.pause()
        elif outcome.reply is not None:
            services.settle(request, member, outcome.reply)
    except LMError as error:
        _share_failure(services, request, member, ExchangeOutcome(error=error))
        raise
    except BaseException:  # also Ctrl-C between the answer and its landing
        services.single_flight.leave(member)
        raise
    return outcome


def _share_failure(
    services: ExchangeServices, request: Request, member: FlightMember[ExchangeOutcome], outcome: ExchangeOutcome
) -> None:
    if request.was_cut_short or time.monotonic() >= request.until:
        services.single_flight.leave(member)  # our time was over, not theirs
    else:
        outcome.asked_by = request.lm.ref
        services.single_flight.land(member, outcome)


def _follow(
    services: ExchangeServices, request: Request, member: FlightMember[ExchangeOutcome]
) -> Effects[ExchangeOutcome | None]:
    """Return the leader's outcome; None when the lead is ours now, or its failure concerns another LM's settings."""
    can_wait = True
    try:
        while can_wait and not member.settled and time.monotonic() < request.until:
            slice_end = min(request.until, time.monotonic() + STALL_S)
            can_wait = yield Wait(member, slice_end if request.stream else request.deadline)
            can_wait = can_wait and not services.single_flight.is_stalled(member)
    except BaseException:  # as above: whoever waits must not wait for us
        services.single_flight.leave(member)
        raise
    shared = member.outcome
    if shared is None:
        if member.leads:
            return None
        services.single_flight.leave(member)
        if not can_wait:
            return (yield from _alone(services, request))
        raise LMTimeoutError("The same request, under way for another caller, took too long.", model=request.lm.model)
    if shared.error is None:
        assert shared.reply is not None
        reply, answer = yield from _answer_of(request, shared.reply)
        return ExchangeOutcome(reply=reply, answer=answer, cached=True)
    if shared.asked_by != request.lm.ref:
        return None
    error = copy.copy(shared.error)  # each caller raises its own: tracebacks are not shared
    if shared.reply is None:
        raise error
    return ExchangeOutcome(reply=shared.reply, error=error, attempts=0)


def _alone(services: ExchangeServices, request: Request) -> Exchange:
    """Ask on our own although somebody else does: waiting for them would be for ever."""
    outcome = yield from attempts(services, request)
    if outcome.error is None and outcome.reply is not None:
        services.settle(request, None, outcome.reply)
    return outcome
