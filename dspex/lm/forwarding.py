"""Answer a worker's forwarded request: the response as the worker may see it, and its cost."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInput
from .effects import Effects, ExchangeOutcome, Give
from .exchange_services import ExchangeServices
from .record import LM
from .record_checks import are_points
from .redaction import redact
from .request import Request, silent
from .response import Response, note_truncation, opened
from .sent_options import EXTRA, MARKS
from .unfinished_usage import unfinished_usage
from .usage import Account, UsageMeter

# What a worker's reader looks at; all else (Location, cookies, what proxies add) is nobody's business.
_SHOWN = re.compile(
    r"content-type|date|retry-after(-ms)?|[\w-]*request-?id|[\w-]*rate-?limit[\w-]*|openai-processing-ms"
)
NAME_MOST = 500  # characters
URL_MOST = 64 * 1024
REASON_MOST = 64 * 1024
HEADERS_MOST = 200
MEMBERS_MOST = 200
MEDIA_MOST = 1000


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a request: which accounts count it, who gets its events, and which LMs are its alone, by ref."""

    accounts: Sequence[Account] = ()
    emit: Callable[..., object] = field(default=silent)
    lms: Mapping[str, LM] = field(default_factory=dict)


def require_request(request: Mapping[str, Any]) -> None:
    """Check the type of each field of a worker's request before anything is made of it.

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


def _are_members(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping) or len(value) > MEMBERS_MOST or not all(isinstance(name, str) for name in value):
        return False
    within, marks = value.get(EXTRA), value.get(MARKS)
    return are_points(marks) and (within is None or _are_members(dict.fromkeys(within, 0) if _is_map(within) else 0))


def _are_blocks(value: Any) -> bool:
    if value is None:
        return True
    return (
        _is_map(value) and len(value) <= MEDIA_MOST and all(isinstance(k, str) and _is_map(v) for k, v in value.items())
    )


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


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
    "members": _are_members,
    "media": _are_blocks,
    "is_bare": _is_flag,
}


def relayed(
    services: ExchangeServices, request: Request, usage: UsageMeter, accounts: Sequence[Account]
) -> Effects[None]:
    """Yield the head, then the parts as a worker may see them; a response that ends early is counted too.

    Raises:
        LMError: the provider refused, or no answer came: what this means is decided here, for both routes.
    """
    response = yield from opened(services, request)
    with contextlib.closing(response):
        try:
            yield Give(head_of(response.outcome))
            while (part := (yield from response.part())) is not None:
                yield Give(part)
        finally:
            _count(request, response, usage, accounts)


def head_of(outcome: ExchangeOutcome) -> dict[str, Any]:
    """Return the head that a worker gets before the body.

    Raises:
        LMError: the response is a refusal.
    """
    source = outcome.live.head if outcome.live is not None else outcome.reply.head if outcome.reply else None
    assert source is not None
    if outcome.error is not None:
        raise outcome.error
    headers = [[name, redact(value)] for name, value in source.headers if _SHOWN.fullmatch(name)]
    return {"status": source.status, "headers": headers, "cached": outcome.cached}


def _count(request: Request, response: Response, usage: UsageMeter, accounts: Sequence[Account]) -> None:
    """Note what was used, as the response reports it; of a stream that was left or cut short, what it came to."""
    outcome = response.outcome
    answered = outcome.live.reader if outcome.live is not None else outcome.answer
    if answered is not None:
        note_truncation(answered.finish_reason, request, outcome)
    if outcome.cached:
        usage.add_cached(accounts)
    elif outcome.live is not None:
        reported = outcome.live.usage()
        if not response.has_ended:
            reported = unfinished_usage(request.body, outcome.live.reader, reported)
        usage.add(request.lm, reported, accounts)
    elif outcome.answer is not None:
        usage.add(request.lm, outcome.answer.usage, accounts)
