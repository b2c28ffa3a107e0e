"""What becomes of a response: the text of a stream as it comes, the choice that it is, and what both cost.

Functions over the parts that `bodies` gives; on the caller's thread or event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator

from dspex.inprocess.lm.completion import Choice, Completion, completion_of
from dspex.inprocess.lm.dialects.answer import Answer
from dspex.inprocess.lm.exchange import Order, Outcome
from dspex.inprocess.lm.ledger import Ledger


def texts(
    body: Generator[Outcome | bytes, None, None], order: Order, ledger: Ledger
) -> Generator[str | Completion, None, None]:
    """The texts as they come, then the completion; closes the body, and counts it also when it ends early."""
    reader = order.dialect.reader(order.lm)
    with contextlib.closing(body):
        outcome = _accepted(next(body))
        answer: Answer | None = None
        try:
            for part in body:
                assert isinstance(part, bytes)
                yield from reader.feed(part)
            answer = reader.finish()
        finally:
            if answer is None and not outcome.cached:
                ledger.add(order.lm, reader.usage)  # it was asked for, and this much of it is known
    yield completion_of(_counted(answer, order, outcome, ledger))


async def atexts(
    body: AsyncGenerator[Outcome | bytes, None], order: Order, ledger: Ledger
) -> AsyncGenerator[str | Completion, None]:
    """`texts`, asynchronously."""
    reader = order.dialect.reader(order.lm)
    async with contextlib.aclosing(body):
        outcome = _accepted(await anext(body))
        answer: Answer | None = None
        try:
            async for part in body:
                assert isinstance(part, bytes)
                for text in reader.feed(part):
                    yield text
            answer = reader.finish()
        finally:
            if answer is None and not outcome.cached:
                ledger.add(order.lm, reader.usage)
    yield completion_of(_counted(answer, order, outcome, ledger))


def choice_of(order: Order, outcome: Outcome, ledger: Ledger) -> Choice:
    """The choice that a whole response is.

    Raises:
        LMError: it is a refusal, or cannot be read.
    """
    _accepted(outcome)
    assert outcome.reply is not None
    return _counted(order.dialect.answer(order.lm, outcome.reply.body), order, outcome, ledger)


def _counted(answer: Answer, order: Order, outcome: Outcome, ledger: Ledger) -> Choice:
    cost = ledger.add_cached() if outcome.cached else ledger.add(order.lm, answer.usage)
    return Choice(answer, cost, outcome.cached, outcome.attempts)


def _accepted(outcome: Outcome | bytes) -> Outcome:
    assert isinstance(outcome, Outcome)
    if outcome.error is not None:
        raise outcome.error
    return outcome
