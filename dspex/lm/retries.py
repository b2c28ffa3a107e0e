"""Attempt one request: rate limit, circuit breaker, send, check, and a pause before the next attempt.

An error may come as a success (`response_check`). A pause is what Retry-After says, else full jitter; it never passes
the deadline. Generators of effects: nothing here blocks.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import LMCertificateError, LMError, LMLocalLimitError, LMProxyError, LMTimeoutError, LMTransportError
from ..events import Name
from .effects import (
    Authorize,
    Effects,
    Exchange,
    ExchangeOutcome,
    Read,
    ReceivePart,
    SendRequest,
    Sleep,
    StartServer,
)
from .exchange_services import ExchangeServices
from .http.connection import WAITED_FOR_A_PLACE
from .http.endpoint import CREDENTIALS_WANTED, credentials_refused
from .http.http_message import Reply
from .rate_limits import OPEN_S
from .request import Request
from .response_check import LiveStream, answer_of, cleaned, settled, usage_reported
from .worker_reading import is_quick

if TYPE_CHECKING:
    from .record import LM

LOOP_BYTES_MOST = 256 * 1024  # of a body that an event loop reads itself: 5 ms, of one that was made to take long
BACKOFF_S = 0.5
BACKOFF_MOST_S = 30.0
RETRY_AFTER_MOST_S = 600.0  # a provider that names a longer pause has refused, also where there is no deadline
FAIR_S = 5.0  # an endpoint that was given less time than this has not failed when the time is up
# Failures by which an endpoint shows that it is down or drowning; anything else proves that it is there.
_UNANSWERED = frozenset({502, 503, 504, 529})


def attempts(services: ExchangeServices, request: Request) -> Exchange:
    lm = request.lm
    attempt = 0
    while True:
        if lm.requests_per_minute is not None:
            yield from _admission(services, request)
        outcome = yield from _attempt(services, request)
        outcome.attempts = attempt + 1 + request.resent
        error = outcome.error
        if error is None:
            return outcome
        pause = _pause(services, error, attempt)
        if attempt == lm.retries or error.retryable != "now":
            break
        if _is_hopeless(request, outcome, pause):
            request.was_cut_short = pause <= RETRY_AFTER_MOST_S
            break
        request.emit(
            Name.LM_RETRIED,
            model=lm.model,
            endpoint=request.target.name,
            attempt=attempt + 1,
            reason=type(error).__name__,
            status=error.status,
            pause_s=pause,
        )
        yield Sleep(pause)
        attempt += 1
    if outcome.reply is None and outcome.error is not None:
        raise outcome.error
    return outcome


def _is_hopeless(request: Request, outcome: ExchangeOutcome, pause: float) -> bool:
    """Return whether a pause before the next attempt would be in vain."""
    if pause > RETRY_AFTER_MOST_S or time.monotonic() + pause >= request.until:
        return True
    return outcome.was_held_back and request.has_alternative


def _attempt(services: ExchangeServices, request: Request) -> Exchange:
    lm = request.lm
    left = request.left()
    if left <= 0:
        raise LMTimeoutError("The deadline passed before the request could be sent.", model=lm.model)
    wait = services.limits.breaker_wait(lm.api_base, time.monotonic())
    if wait:
        message = "The endpoint gave no answer to many requests in a row and is left alone for a moment."
        return ExchangeOutcome(error=_name(lm, LMTransportError(message, retry_after=wait)), was_held_back=True)
    try:
        sent = (yield StartServer(request)) if lm.provider.prefix == "local" else request
        if lm.signer is not None:
            sent = yield Authorize(sent)
        result = yield SendRequest(sent, left, None if request.resent else request.resend)
        if isinstance(result, Reply):
            _record(services, request, result.head.status not in _UNANSWERED)
            if len(result.body) <= LOOP_BYTES_MOST and (not request.for_worker or is_quick(request, result.body)):
                return _judged(sent, request, result)
            outcome: ExchangeOutcome = yield Read(functools.partial(_judged, sent, request, result))
            return outcome
        _record(services, request, True)
        return (yield from _opened(request, LiveStream(sent, result)))
    except (LMTransportError, LMTimeoutError) as error:
        if error.provider is not None:  # the provider itself reported it, inside a stream
            return ExchangeOutcome(error=error)
        if _blames_endpoint(error, left):
            _record(services, request, False)
        return ExchangeOutcome(error=_name(lm, error))


def _blames_endpoint(error: LMError, left: float) -> bool:
    """Return whether a failure shows that the endpoint is down, and not the network's settings or this process."""
    if isinstance(error, LMTransportError):
        return not isinstance(error, LMCertificateError | LMProxyError | LMLocalLimitError)
    return left >= FAIR_S and error.code != WAITED_FOR_A_PLACE


def _judged(sent: Request, request: Request, received: Reply) -> ExchangeOutcome:
    """Return the outcome of a whole response: an answer, or the error that its status or its body reports."""
    reply = cleaned(sent, received)
    status = reply.head.status
    if status >= 300:
        if status == CREDENTIALS_WANTED and request.target.proxy is not None:
            return ExchangeOutcome(reply=reply, error=_name(request.lm, credentials_refused(request.target)))
        refusal = request.dialect.failure(request.lm, status, reply.body)
        return ExchangeOutcome(reply=reply, error=settled(request, refusal, reply.head))
    try:
        shown, answer = answer_of(request, reply)
    except LMError as error:
        _spend(request, usage_reported(request, reply.body))
        return ExchangeOutcome(reply=reply, error=error)
    return ExchangeOutcome(reply=shown, answer=answer)


def _opened(request: Request, live: LiveStream) -> Exchange:
    """Read a stream until its answer begins: what ends it before was shown to nobody, and can be tried again."""
    try:
        while not live.open((yield ReceivePart(live.parts))):
            pass
    except LMError as error:
        live.stream.close()
        _spend(request, live.usage())
        if isinstance(error, LMTransportError | LMTimeoutError):
            raise
        return ExchangeOutcome(error=error)
    except BaseException:  # a reader that was interrupted, cancelled or closed
        live.stream.close()
        raise
    return ExchangeOutcome(live=live)


def _spend(request: Request, usage: Mapping[str, Any]) -> None:
    if usage:
        request.spend(usage)


def _record(services: ExchangeServices, request: Request, answered: bool) -> None:
    """Record in the circuit breaker how an attempt ended."""
    turn = services.limits.record(request.lm.api_base, answered, time.monotonic())
    if turn == "opened":
        request.emit(Name.LM_CIRCUIT_OPENED, model=request.lm.model, endpoint=request.target.name, pause_s=OPEN_S)
    elif turn == "closed":
        request.emit(Name.LM_CIRCUIT_CLOSED, model=request.lm.model, endpoint=request.target.name)


def _admission(services: ExchangeServices, request: Request) -> Effects[None]:
    """Wait for the endpoint's rate limit; a wait that cannot end in time fails at once."""
    lm = request.lm
    assert lm.requests_per_minute is not None
    now = time.monotonic()
    wait = services.limits.reserve(lm, now)
    if wait <= 0:
        return
    try:
        if request.deadline is not None and now + wait >= request.deadline:
            request.was_cut_short = True
            message = f"requests_per_minute={lm.requests_per_minute:g} leaves no room before the deadline."
            raise LMTimeoutError(message, model=lm.model, retry_after=wait)
        request.emit(Name.LM_LIMITED, model=lm.model, endpoint=request.target.name, pause_s=wait)
        yield Sleep(wait)
    except BaseException:  # interrupted, cancelled or closed: the place in the minute was not used
        services.limits.give_back(lm)
        raise


def _pause(services: ExchangeServices, error: LMError, attempt: int) -> float:
    if error.retry_after is not None:
        return error.retry_after
    return services.random.uniform(0.0, min(BACKOFF_MOST_S, BACKOFF_S * 2**attempt))


def _name(lm: LM, error: LMError) -> LMError:
    """Return the same error, saying which model it concerns."""
    if error.model is not None:
        return error
    named = type(error)(
        error.message,
        code=error.code,
        model=lm.model,
        provider=lm.provider.id,
        status=error.status,
        retry_after=error.retry_after,
    )
    named.__cause__ = error.__cause__
    return named
