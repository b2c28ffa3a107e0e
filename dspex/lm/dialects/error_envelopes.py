"""Find and classify errors in a 2xx body or a stream's event, whatever their envelope.

Gateways answer 200 and say inside that it went wrong, each in its own way: `{"error": {...}}`, `{"error": "text"}`,
`{"object": "error"}` (vLLM), `{"type": "error"}` (Anthropic), `choices[0].error` (OpenRouter), a list of these
(Gemini), `{"detail": ...}` (FastAPI). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import (
    LMAuthError,
    LMBillingError,
    LMContextWindowExceededError,
    LMInvalidRequestError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMUnsupportedModelError,
)
from . import error_classes

if TYPE_CHECKING:
    from ..record import LM

_DEEPEST = 4  # envelopes within envelopes
_MESSAGES = (
    *("message", "detail", "msg", "error_message", "error_msg", "errors", "title", "reason"),
    *("errorMessage", "errorMsg", "errmsg", "error_description"),
)
_CODES = ("code", "type", "status", "status_code", "error_type", "error_code", "errorCode", "errcode")
_BROKEN_OFF = ("error", "abort", "cancel", "fail", "insufficient")  # in the reason why an answer ended
_NO_CODES = frozenset(("error", "none", "null"))
CODES: dict[str, type[LMProviderError]] = {
    **error_classes.ANTHROPIC_TYPES,
    **error_classes.OPENAI_STREAM_CODES,
    "invalid_request_error": LMInvalidRequestError,
    "bad_request": LMInvalidRequestError,
    "BadRequestError": LMInvalidRequestError,
    "INVALID_ARGUMENT": LMInvalidRequestError,
    "NOT_FOUND": LMInvalidRequestError,
    "NotFoundError": LMUnsupportedModelError,
    "context_window_exceeded": LMContextWindowExceededError,
    "invalid_authentication_error": LMAuthError,
    "unauthorized": LMAuthError,
    "UNAUTHENTICATED": LMAuthError,
    "PERMISSION_DENIED": LMAuthError,
    "insufficient_credits": LMBillingError,
    "billing_not_active": LMBillingError,
    "rate_limited": LMRateLimitError,
    "rate_limit": LMRateLimitError,
    "RateLimitError": LMRateLimitError,
    "RESOURCE_EXHAUSTED": LMRateLimitError,
    "timeout": LMTimeoutError,
    "DEADLINE_EXCEEDED": LMTimeoutError,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """The contents of an error's envelope: the message, and its codes, the most precise first."""

    message: str
    codes: tuple[str, ...] = ()

    @property
    def kind(self) -> type[LMProviderError]:
        """The class of the error; LMServerError where no code is a known one."""
        for code in self.codes:  # names before numbers: 429 may mean a spent quota too
            if code in CODES:
                return CODES[code]
        for code in self.codes:
            if len(code) == 3 and code.isdecimal() and code[0] in "45":
                return error_classes.class_of_status(int(code))
        return LMServerError

    def error(self, lm: LM, kind: type[LMProviderError] | None = None) -> LMProviderError:
        """Return the error to raise."""
        return error_classes.failure(lm, kind or self.kind, self.message, code=self.codes[0] if self.codes else "")


def fault_in(payload: Any) -> Fault | None:
    """Return the error that a JSON value is or holds; None if it holds none."""
    if isinstance(payload, list):
        return next((fault for item in payload if (fault := fault_in(item)) is not None), None)
    if not isinstance(payload, dict):
        return None
    if error := payload.get("error"):
        return _fault(error, payload)
    if payload.get("type") == "error" or payload.get("object") == "error":
        return _fault(payload, {})
    return _in_choices(payload.get("choices"))


def complaint_in(payload: Any) -> Fault | None:
    """Return the error text in a JSON value that is no answer; None if it has none."""
    if not isinstance(payload, dict):
        return None
    if any(payload.get(name) for name in _MESSAGES) or any(map(_says_failure, payload.items())):
        return _fault(payload, {})
    return complaint_in(payload.get("response"))


def text_fault(text: str) -> Fault:
    """Return the error that a text is."""
    return Fault(text[:10_000])


def _in_choices(choices: Any) -> Fault | None:
    if not isinstance(choices, list):
        return None
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        for part in (choice, choice.get("delta"), choice.get("message")):
            if isinstance(part, dict) and (error := part.get("error")):
                return _fault(error, {})
        reason = str(choice.get("finish_reason") or "")
        if any(word in reason.lower() for word in _BROKEN_OFF):
            return Fault(f"The provider broke the answer off ({reason[:100]}).")
    return None


def _says_failure(member: tuple[str, Any]) -> bool:
    """Whether a member of an object that is no answer says that it failed: an error, though an empty one, or a status.

    Statuses are HTTP's or a service's own, which begin higher; of MiniMax's `base_resp` any is one but 0.
    """
    name, value = member[0].lower(), member[1]
    if name in ("success", "ok"):
        return value is False
    if name in ("status", "status_code", "code"):
        return value in ("error", "failed", "failure") or (type(value) is int and value >= 400)
    if name == "base_resp":
        return isinstance(value, dict) and value.get("status_code", 0) != 0
    return name.startswith("err") and value not in (None, 0, "")


def _fault(error: Any, outer: Mapping[str, Any]) -> Fault:
    layers = [*_layers(error), outer]
    codes = dict.fromkeys(code for layer in layers for code in _codes(layer))
    return Fault(_message(error, layers), tuple(codes))


def _layers(error: Any) -> list[Mapping[str, Any]]:
    """Return the objects that an error is wrapped in, the innermost first."""
    found: list[Mapping[str, Any]] = []
    while isinstance(error, dict | list) and error and len(found) < _DEEPEST:
        if isinstance(error, list):
            error = error[0]
            continue
        found.insert(0, error)
        error = error.get("error") or error.get("base_resp")
    return found


def _codes(layer: Mapping[str, Any]) -> Iterator[str]:
    for name in _CODES:
        code = layer.get(name)
        if isinstance(code, str | int) and not isinstance(code, bool) and str(code).lower() not in _NO_CODES:
            yield str(code)


def _message(error: Any, layers: list[Mapping[str, Any]]) -> str:
    message = next((layer[name] for layer in layers for name in (*_MESSAGES, "status_msg") if layer.get(name)), None)
    if message is None:
        message = error
    return message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
