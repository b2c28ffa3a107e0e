"""Map HTTP errors to `LMError` classes by DSPy 3.4.1's rules (lm15 errors.py, each provider's normalize_error)."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ...errors import (
    LMAuthError,
    LMBillingError,
    LMContextWindowExceededError,
    LMError,
    LMInvalidRequestError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMUnsupportedModelError,
)
from ..redaction import redact

if TYPE_CHECKING:
    from ..http.http_message import Head
    from ..record import LM

_MESSAGE_MOST = 500
_CODE_MOST = 200  # characters of a provider's code, and of a request's id
_READ_MOST = 100_000  # cut only after the keys are out, or half of one might stay
_MODEL_GONE = ("not found", "does not exist", "not exist", "not supported", "unsupported", "not available", "unknown")

_BAD_CONTENT = """invalid_prompt invalid_image invalid_image_format invalid_base64_image invalid_image_url
    image_too_large image_too_small image_parse_error image_content_policy_violation invalid_image_mode
    image_file_too_large unsupported_image_media_type empty_image_file failed_to_download_image
    image_file_not_found""".split()

OPENAI_CODES: dict[str, type[LMProviderError]] = {
    "server_error": LMServerError,
    "rate_limit_exceeded": LMRateLimitError,
    "no_capacity": LMRateLimitError,
    "too_many_requests": LMRateLimitError,
    "vector_store_timeout": LMTimeoutError,
    "model_not_found": LMUnsupportedModelError,
    "model_not_available": LMUnsupportedModelError,
    "unsupported_model": LMUnsupportedModelError,
    "DeploymentNotFound": LMUnsupportedModelError,
    **dict.fromkeys(_BAD_CONTENT, LMInvalidRequestError),
}
OPENAI_STREAM_CODES: dict[str, type[LMProviderError]] = {
    **OPENAI_CODES,
    "context_length_exceeded": LMContextWindowExceededError,
    "invalid_api_key": LMAuthError,
    "insufficient_quota": LMBillingError,
    "1113": LMBillingError,
    "exceeded_current_quota_error": LMBillingError,
    "authentication_error": LMAuthError,
    "rate_limit_error": LMRateLimitError,
}
ANTHROPIC_TYPES: dict[str, type[LMProviderError]] = {
    "authentication_error": LMAuthError,
    "permission_error": LMAuthError,
    "billing_error": LMBillingError,
    "rate_limit_error": LMRateLimitError,
    "request_too_large": LMInvalidRequestError,
    "not_found_error": LMInvalidRequestError,
    "resource_not_found_error": LMInvalidRequestError,
    "DeploymentNotFound": LMUnsupportedModelError,
    "invalid_authentication_error": LMAuthError,
    "invalid_request_error": LMInvalidRequestError,
    "api_error": LMServerError,
    "overloaded_error": LMServerError,
    "timeout_error": LMTimeoutError,
}


def class_of_status(status: int) -> type[LMProviderError]:
    """Return the class that a status means when the body says nothing more."""
    if status in (401, 403):
        return LMAuthError
    if status == 402:
        return LMBillingError
    if status in (408, 504):
        return LMTimeoutError
    if status == 429:
        return LMRateLimitError
    if status in (400, 404, 409, 413, 422):
        return LMInvalidRequestError
    return LMServerError if 500 <= status <= 599 else LMProviderError


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
    shown = redact(message[:_READ_MOST], *secrets)[:_MESSAGE_MOST] or code or f"HTTP {status}"
    return kind(
        f"{shown} (HTTP {status})" if status is not None else shown,
        model=lm.model,
        provider=lm.provider.id,
        provider_code=redact(code, *secrets)[:_CODE_MOST] if code else None,
        status=status,
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


def envelope(body: bytes) -> tuple[dict[str, Any], Any] | None:
    """Return (the body's object, its "error" member), None when the body is not a JSON object."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return (data, data.get("error")) if isinstance(data, dict) else None


def is_about_model(message: str, *codes: str) -> bool:
    """Return whether the provider's words say that the model does not exist."""
    words = " ".join(part for part in (message, *codes) if part).lower()
    return "model" in words and any(marker in words for marker in _MODEL_GONE)


def is_about_length(message: str) -> bool:
    """Return whether Anthropic's words say that the prompt is too long."""
    words = message.lower()
    return any(
        marker in words for marker in ("prompt is too long", "too many tokens", "context window", "context length")
    ) or ("token" in words and ("limit" in words or "exceed" in words))


def plain_text(body: bytes) -> str:
    """Return a body that is not JSON, as a message."""
    return body[:_READ_MOST].decode("utf-8", "replace").strip()
