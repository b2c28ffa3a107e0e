"""A worker's forwarded request: its response as the worker may see it, and its meter."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspex.errors import InvalidInput, LMError
from dspex.inprocess.cache import Cache
from dspex.inprocess.lm.exchange import Order, Outcome
from dspex.inprocess.lm.ledger import Account, Ledger
from dspex.inprocess.lm.reading import MALFORMED
from dspex.inprocess.lm.record import LM
from dspex.inprocess.lm.redaction import redact

# The framing is ours; what an answer is encoded in was decided by us too; cookies are nobody's business.
_HIDDEN = frozenset(("transfer-encoding", "content-length", "connection", "set-cookie"))
REFUSAL_MOST = 1024 * 1024  # characters of a refusal that a worker gets to read
NAME_MOST = 500  # characters
URL_MOST = 64 * 1024
REASON_MOST = 64 * 1024
HEADERS_MOST = 200
_UNREADABLE = (LMError, *MALFORMED)


def _silent(*_: object, **__: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose request it is: which accounts count it, and who hears of it, with its ids among the facts."""

    accounts: Sequence[Account] = ()
    emit: Callable[..., object] = field(default=_silent)


def require_request(request: Mapping[str, Any]) -> None:
    """Check a worker's request before anything is made of it: each of its fields is what its name says.

    Raises:
        InvalidInput: one is not; `field` names it.
    """
    for name, is_right in _REQUEST.items():
        if not is_right(request.get(name)):
            given = type(request.get(name)).__name__
            raise InvalidInput(f"A request to a language model has no such {name!r} (it is {given}).", field=name)


def _is_text(most: int, *, may_lack: bool = True) -> Callable[[Any], bool]:
    return lambda value: len(value) <= most if isinstance(value, str) else value is None and may_lack


def _are_headers(value: Any) -> bool:
    if value is None or isinstance(value, Mapping):
        value = (value or {}).items()
    elif not isinstance(value, list | tuple):
        return False
    pairs = list(value)
    return len(pairs) <= HEADERS_MOST and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        for pair in pairs
    )


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_span(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and not math.isnan(value) and value >= 0)


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**31)


def _is_rollout(value: Any) -> bool:
    return type(value) is int or _is_text(NAME_MOST)(value)


_REQUEST: dict[str, Callable[[Any], bool]] = {
    "lm": _is_text(NAME_MOST, may_lack=False),
    "method": _is_text(NAME_MOST),
    "url": _is_text(URL_MOST, may_lack=False),
    "headers": _are_headers,
    "body": lambda value: isinstance(value, bytes | str),
    "stream": _is_flag,
    "cache": _is_flag,
    "has_alternative": _is_flag,
    "rollout_id": _is_rollout,
    "candidate": _is_count,
    "timeout": _is_span,
    "instead_of": _is_text(NAME_MOST),
    "reason": _is_text(REASON_MOST),
}


def relayed(
    body: Generator[Outcome | bytes, None, None],
    order: Order,
    ledger: Ledger,
    cache: Cache,
    accounts: Sequence[Account],
) -> Generator[dict[str, Any] | bytes, None, None]:
    """The head, then the parts as a worker may see them; closes the body, and counts it also when it ends early."""
    with contextlib.closing(body):
        outcome = next(body)
        assert isinstance(outcome, Outcome)
        meter = Meter(ledger, cache, order, outcome, accounts)
        head = head_of(outcome)
        try:
            yield head
            for part in body:
                assert isinstance(part, bytes)
                meter.feed(part)
                yield part if head["status"] < 400 else without_keys(part, order.lm)
            meter.is_whole = True
        finally:
            meter.close()


async def arelayed(
    body: AsyncGenerator[Outcome | bytes, None], order: Order, ledger: Ledger, cache: Cache, accounts: Sequence[Account]
) -> AsyncGenerator[dict[str, Any] | bytes, None]:
    """`relayed`, asynchronously."""
    async with contextlib.aclosing(body):
        outcome = await anext(body)
        assert isinstance(outcome, Outcome)
        meter = Meter(ledger, cache, order, outcome, accounts)
        head = head_of(outcome)
        try:
            yield head
            async for part in body:
                assert isinstance(part, bytes)
                meter.feed(part)
                yield part if head["status"] < 400 else without_keys(part, order.lm)
            meter.is_whole = True
        finally:
            meter.close()


class Meter:
    """Counts the usage of a forwarded response as its bytes pass by; `close` it also when it ends early."""

    def __init__(
        self, ledger: Ledger, cache: Cache, order: Order, outcome: Outcome, accounts: Sequence[Account]
    ) -> None:
        self._ledger = ledger
        self._cache = cache
        self._order = order
        self._accounts = accounts
        self._reader = order.dialect.reader(order.lm) if order.stream else None
        self._parts: list[bytes] = []
        self._is_cached = outcome.cached
        self._counts = not outcome.cached and outcome.error is None
        self._can_read = True
        self.is_whole = False  # the body was read to its end

    def feed(self, part: bytes) -> None:
        """Take a part of the body."""
        if not self._counts:
            return
        if self._reader is None:
            self._parts.append(part)
        elif self._can_read:
            try:
                self._reader.feed(part)
            except _UNREADABLE:
                self._can_read = False  # the worker reads the same bytes and says what is wrong with them

    def close(self) -> None:
        """Note what was used, as far as it was said; of a stream that was cut short that may be nothing."""
        if self._is_cached:
            self._ledger.add_cached(self._accounts)
        elif self._counts:
            self._ledger.add(self._order.lm, self._usage(), self._accounts)
            if self._order.key is not None and self.is_whole and not self._is_answer():
                self._cache.forget(self._order.key)

    def _usage(self) -> Mapping[str, Any]:
        if self._reader is not None:
            return self._reader.usage
        try:
            return self._order.dialect.answer(self._order.lm, b"".join(self._parts)).usage
        except _UNREADABLE:
            self._can_read = False
            return {}

    def _is_answer(self) -> bool:
        """Whether the worker can make an answer of it, as far as the parent speaks the dialect."""
        has_end = self._reader is None or self._reader.ended or not self._order.lm.provider.native
        return self._can_read and has_end


def head_of(outcome: Outcome) -> dict[str, Any]:
    """What a worker is told before the body."""
    live = outcome.stream if outcome.stream is not None else outcome.reply
    assert live is not None
    source = live.head
    headers = [[name, value] for name, value in source.headers if name not in _HIDDEN]
    return {"status": source.status, "headers": headers, "cached": outcome.cached}


def without_keys(part: bytes, lm: LM) -> bytes:
    """A refusal's body as a worker may see it: providers quote the key that they refuse (RULES X3)."""
    text = part[: 4 * REFUSAL_MOST].decode("utf-8", "surrogateescape")
    return redact(text, *lm.secrets)[:REFUSAL_MOST].encode("utf-8", "surrogateescape")
