"""Make the error of a failure: the provider's words without keys, its codes, and what only the headers hold."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ...errors import LMError, LMProviderError
from ..redaction import redact

if TYPE_CHECKING:
    from ..http.http_message import Head
    from ..record import LM

_MESSAGE_MOST = 500  # characters of a provider's words in an error's text
_WORDS_MOST = 4_000  # and in its attribute
_CODE_MOST = 200  # characters of a provider's code, and of a request's id
_READ_MOST = 100_000  # cut only after the keys are out, or half of one might stay


def failure(
    lm: LM,
    kind: type[LMProviderError],
    message: str,
    *,
    status: int | None = None,
    code: str | None = None,
    **facts: Any,
) -> LMProviderError:
    """Return the error, with the provider's own message cleaned of keys."""
    secrets = lm.secrets
    words = redact(message[:_READ_MOST], *secrets)[:_WORDS_MOST]
    shown = words[:_MESSAGE_MOST] or code or f"HTTP {status}"
    return kind(
        f"{shown} (HTTP {status})" if status is not None else shown,
        model=lm.model,
        provider=lm.provider.id,
        provider_code=redact(code, *secrets)[:_CODE_MOST] if code else None,
        status=status,
        provider_message=words or None,
        **facts,
    )


def with_metadata(error: LMError, head: Head, lm: LM) -> LMError:
    """Add what only the headers hold: the provider's requested pause, the request's id."""
    if error.retry_after is None:
        error.retry_after = retry_after(head)
    id = error.request_id or head.get("x-request-id") or head.get("request-id")
    error.request_id = redact(id, *lm.secrets)[:_CODE_MOST] if id else None
    return error


def retry_after(head: Head) -> float | None:
    """Return the seconds to wait that the provider asks for, by Retry-After (seconds or a date) or retry-after-ms."""
    text = head.get("retry-after")
    if text:
        return _seconds(text)
    milliseconds = _seconds(head.get("retry-after-ms"))
    return None if milliseconds is None else milliseconds / 1000


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return _until(text)
    return seconds if 0 <= seconds < float("inf") else None


def _until(text: str) -> float | None:
    from email.utils import parsedate_to_datetime  # a twentieth of what the first call would load

    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - time.time()) if isinstance(when, datetime) else None
