"""What becomes of a response: the text of a stream as it comes, the choice that it is, and what both cost.

Functions over the parts that `bodies` gives, which are an answer's (`judgement`); on the caller's thread or event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator

from .dialects.dialect_base import Answer
from .dialects.stream_reader import StreamReader
from .effects import ExchangeOutcome, Request
from .response import Choice, Completion, completion_of
from .usage import Ledger


def texts(
    body: Generator[ExchangeOutcome | bytes, None, None], order: Request, ledger: Ledger
) -> Generator[str | Completion, None, None]:
    """The texts as they come, then the completion; closes the body, and counts it also when it ends early."""
    with contextlib.closing(body):
        outcome = _accepted(next(body))
        shown = Shown(order, outcome)
        choice: Choice | None = None
        try:
            for part in body:
                assert isinstance(part, bytes)
                for text in shown.after(part):
                    yield text
            for text in shown.rest():
                yield text
            choice = _counted(shown.reader.finish(), order, outcome, ledger)
        finally:
            if choice is None and not outcome.cached:
                ledger.add(order.lm, shown.reader.usage)  # it was asked for, and this much of it is known
    yield completion_of(choice)


async def atexts(
    body: AsyncGenerator[ExchangeOutcome | bytes, None], order: Request, ledger: Ledger
) -> AsyncGenerator[str | Completion, None]:
    """`texts`, asynchronously."""
    async with contextlib.aclosing(body):
        outcome = _accepted(await anext(body))
        shown = Shown(order, outcome)
        choice: Choice | None = None
        try:
            async for part in body:
                assert isinstance(part, bytes)
                for text in shown.after(part):
                    yield text
            for text in shown.rest():
                yield text
            choice = _counted(shown.reader.finish(), order, outcome, ledger)
        finally:
            if choice is None and not outcome.cached:
                ledger.add(order.lm, shown.reader.usage)
    yield completion_of(choice)


class Shown:
    """How much of a stream's text was given to its reader."""

    __slots__ = ("_feeds", "_given", "reader")

    def __init__(self, order: Request, outcome: ExchangeOutcome) -> None:
        self._feeds = outcome.live is None  # from the cache: nobody has read it yet
        self._given = 0
        self.reader: StreamReader = order.dialect.reader(order.lm) if outcome.live is None else outcome.live.reader

    def after(self, part: bytes) -> list[str]:
        """The texts that a part has brought."""
        if self._feeds:
            self.reader.feed(part)
        return self.rest()

    def rest(self) -> list[str]:
        """The texts that were not given yet."""
        texts = self.reader.text[self._given :]
        self._given += len(texts)
        return texts


def choice_of(order: Request, outcome: ExchangeOutcome, ledger: Ledger) -> Choice:
    """The choice that a whole response is.

    Raises:
        LMError: it is a refusal.
    """
    answer = _accepted(outcome).answer
    assert answer is not None
    return _counted(answer, order, outcome, ledger)


def _counted(answer: Answer, order: Request, outcome: ExchangeOutcome, ledger: Ledger) -> Choice:
    cost = ledger.add_cached() if outcome.cached else ledger.add(order.lm, answer.usage)
    return Choice(answer, cost, outcome.cached, outcome.attempts)


def _accepted(outcome: ExchangeOutcome | bytes) -> ExchangeOutcome:
    assert isinstance(outcome, ExchangeOutcome)
    if outcome.error is not None:
        raise outcome.error
    return outcome
