"""What becomes of a response: the text of a stream as it comes, the choice that it is, and what both cost.

Functions over the parts that `bodies` gives; on the caller's thread or event loop. A response is kept before it is
read, so one that cannot be read is taken out of the cache again: the next caller asks anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TypeVar

from dspex.errors import LMError, LMProviderError
from dspex.inprocess.cache import Cache
from dspex.inprocess.lm.completion import Choice, Completion, completion_of
from dspex.inprocess.lm.dialects.answer import Answer
from dspex.inprocess.lm.exchange import Order, Outcome
from dspex.inprocess.lm.ledger import Ledger

T = TypeVar("T")
# What reading JSON of another shape than the API's ends in.
MALFORMED = (TypeError, ValueError, LookupError, AttributeError, RecursionError)


def texts(
    body: Generator[Outcome | bytes, None, None], order: Order, ledger: Ledger, cache: Cache
) -> Generator[str | Completion, None, None]:
    """The texts as they come, then the completion; closes the body, and counts it also when it ends early."""
    reader = order.dialect.reader(order.lm)
    with contextlib.closing(body):
        outcome = _accepted(next(body))
        answer: Answer | None = None
        try:
            for part in body:
                assert isinstance(part, bytes)
                yield from _read(order, cache, reader.feed, part)
            answer = _read(order, cache, reader.finish)
        finally:
            if answer is None and not outcome.cached:
                ledger.add(order.lm, reader.usage)  # it was asked for, and this much of it is known
    yield completion_of(_counted(answer, order, outcome, ledger))


async def atexts(
    body: AsyncGenerator[Outcome | bytes, None], order: Order, ledger: Ledger, cache: Cache
) -> AsyncGenerator[str | Completion, None]:
    """`texts`, asynchronously."""
    reader = order.dialect.reader(order.lm)
    async with contextlib.aclosing(body):
        outcome = _accepted(await anext(body))
        answer: Answer | None = None
        try:
            async for part in body:
                assert isinstance(part, bytes)
                for text in _read(order, cache, reader.feed, part):
                    yield text
            answer = _read(order, cache, reader.finish)
        finally:
            if answer is None and not outcome.cached:
                ledger.add(order.lm, reader.usage)
    yield completion_of(_counted(answer, order, outcome, ledger))


def choice_of(order: Order, outcome: Outcome, ledger: Ledger, cache: Cache) -> Choice:
    """The choice that a whole response is.

    Raises:
        LMError: it is a refusal, or cannot be read.
    """
    _accepted(outcome)
    assert outcome.reply is not None
    return _counted(_read(order, cache, order.dialect.answer, order.lm, outcome.reply.body), order, outcome, ledger)


def _read(order: Order, cache: Cache, read: Callable[..., T], *given: object) -> T:
    try:
        return read(*given)
    except (LMError, *MALFORMED) as error:
        if order.key is not None:
            cache.forget(order.key)
        if isinstance(error, LMError):
            raise
        lm = order.lm
        message = f"The reply is not of the API's shape ({type(error).__name__} while reading it)."
        raise LMProviderError(message, model=lm.model, provider=lm.provider.id, status=200) from error


def _counted(answer: Answer, order: Order, outcome: Outcome, ledger: Ledger) -> Choice:
    cost = ledger.add_cached() if outcome.cached else ledger.add(order.lm, answer.usage)
    return Choice(answer, cost, outcome.cached, outcome.attempts)


def _accepted(outcome: Outcome | bytes) -> Outcome:
    assert isinstance(outcome, Outcome)
    if outcome.error is not None:
        raise outcome.error
    return outcome
