"""Choose the class of a provider's error by its codes, its words and its status. Pure.

Codes that name one thing come first, then words, then the status, then codes that name many. DSPy 3.4.1's rules (lm15,
each provider's normalize_error) hold where they say something; the words of servers that it does not know are added.
A rate is never taken for a length: both count tokens, and only one of them passes by waiting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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

Kind = type[LMProviderError]

_READ_MOST = 10_000  # characters of a message that are looked at
_PRECISE: dict[Kind, str] = {
    LMContextWindowExceededError: """context_length_exceeded context_window_exceeded exceed_context_size_error
        model_context_window_exceeded context_length_exceeded_error contextwindowexceedederror prompt_too_long
        invalid_request_prompt_too_long context_too_long 1261""",
    LMBillingError: """insufficient_quota exceeded_current_quota_error billing_error insufficient_credits
        insufficient_balance insufficient_balance_error insufficient_funds billing_not_active
        billing_hard_limit_reached payment_required credit_limit_exceeded arrearage account_deactivated
        quota_exceeded_error 1113 1008""",
    LMAuthError: """invalid_api_key authentication_error invalid_authentication_error permission_error unauthorized
        unauthenticated permission_denied authenticationerror permissiondeniederror api_key_invalid invalidapikey
        accessdeniedexception unrecognizedclientexception expiredtokenexception invalidsignatureexception
        missingauthenticationtokenexception incorrect_api_key forbidden access_denied""",
    LMRateLimitError: """rate_limit_exceeded rate_limit_error rate_limited rate_limit ratelimiterror
        rate_limit_reached_error no_capacity too_many_requests resource_exhausted throttlingexception
        throttling toomanyrequestsexception throttling.ratequota limitexceededexception tokens_per_minute
        modelnotreadyexception engine_overloaded_error""",
    LMTimeoutError: """vector_store_timeout timeout timeout_error deadline_exceeded modeltimeoutexception
        request_timeout""",
    LMUnsupportedModelError: """model_not_found model_not_available unsupported_model deploymentnotfound
        notfounderror model_not_exist modelnotfound invalid_model model_decommissioned""",
    LMServerError: """overloaded_error unavailable internal aborted serviceunavailableexception
        internalserverexception modelerrorexception internalservererror""",
    LMInvalidRequestError: """invalid_prompt invalid_image invalid_image_format invalid_base64_image
        invalid_image_url image_too_large image_too_small image_parse_error image_content_policy_violation
        invalid_image_mode image_file_too_large unsupported_image_media_type empty_image_file
        failed_to_download_image image_file_not_found request_too_large content_policy_violation content_filter""",
}
_BROAD: dict[Kind, str] = {  # said of so much that a status says more
    LMInvalidRequestError: """invalid_request_error bad_request badrequesterror invalid_argument not_found
        not_found_error resource_not_found_error validationexception validation failed_precondition
        unprocessableentityerror invalidparameter""",
    LMServerError: "server_error api_error",
}


def _by_code(table: Mapping[Kind, str]) -> dict[str, Kind]:
    return {code: kind for kind, codes in table.items() for code in codes.split()}


_PRECISE_CODES = _by_code(_PRECISE)
_BROAD_CODES = _by_code(_BROAD)


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


_RATE = _any_of(
    r"rate.?limit|too many requests|requests? per |tokens? per (?:min|day|hour)|\b[tr]p[md]\b",
    r"throttl|try again (?:in|later)|please wait|slow down",
)
_SPENT = _any_of(
    r"credit balance is too low|insufficient (?:account )?(?:balance|credit|fund)",
    r"(?:more|not enough|out of|no) credits",
    r"exceeded your current quota|billing hard limit|check your billing|payment required",
    r"reached (?:your specified|its monthly|your monthly)|used all available credits|monthly spending limit",
    r"(?:usage|spending|spend|credit) limits? (?:has been |was |is )?(?:reached|exceeded)",
    r"account is not active|account (?:is )?in (?:arrears|good standing)|account balance|balance is not enough",
    r"quota has been exhausted",
)
_KEY = _any_of(
    r"api[ _-]?key (?:is )?(?:not valid|invalid|expired|not found)",
    r"(?:invalid|incorrect|no|missing|expired) api[ _-]?key",
)
_CONTEXT = r"context (?:length|window|limit|size)"
_LENGTH = _any_of(
    r"maximum context length|maximum (?:prompt|model|input) length|maximum allowed (?:input )?length",
    _CONTEXT + r"s?\b.{0,80}\b(?:exceed|overflow|of only|smaller|limit)",
    r"(?:exceeds?|longer than|over|larger than|beyond|too (?:long|large) for)\b.{0,80}\b" + _CONTEXT,
    r"(?:prompt|input|request|context|conversation|messages?)(?: \([^)]{0,40}\))?(?: is| are|:)? too long",
    r"exceeds? (?:the )?(?:max(?:imum)?|limit) (?:allowed |prompt |input |context )*(?:length|context|tokens)",
    r"`?inputs`? (?:tokens \+ `?max_new_tokens`? must be|must have less than)|range of input length should be",
    r"reduce the length of (?:the|your) (?:messages|prompt|input)",
    r"too many (?:input |prompt |total )?(?:tokens|text bytes)",
    r"expected maxlength: \d+, actual: \d+|(?:prompt|input) (?:tokens?|token count|length)\b.{0,60}\b(?:exceed|limit)",
    r"exceeded (?:model |max )?(?:token|context)|prompt exceeds max|context the overflows",
    r"exceeds? the (?:total |max )?tokens|tokens? .{0,40}exceeds? .{0,60}(?:context|token limit|prompt)",
)
_OUTPUT = _any_of(
    r"(?:output|completion|generated|new) tokens?", r"^`?max_(?:completion_|output_)?tokens`?\b", "max_output"
)
_MODEL_GONE = ("not found", "does not exist", "not exist", "not supported", "unsupported", "not available", "unknown")
_LENGTH_STATUSES = frozenset((None, 400, 413, 422, 500))


def kind_of(message: str, codes: Sequence[str] = (), *, status: int | None = None) -> Kind:
    """Return the class of an error; `status` is the response's own, None where that was a success."""
    names = [_name(code) for code in codes]
    words = message[:_READ_MOST].lower()
    found = next((_PRECISE_CODES[name] for name in names if name in _PRECISE_CODES), None)
    if found in (LMContextWindowExceededError, LMBillingError):
        return found
    said = status if status is not None else _number(names)
    if (spoken := _by_words(words, names, said, found)) is not None:
        return spoken
    if found is not None:
        return found
    if said is not None:
        return class_of_status(said)
    return next((_BROAD_CODES[name] for name in names if name in _BROAD_CODES), LMServerError)


def class_of_status(status: int) -> Kind:
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


def _by_words(words: str, names: list[str], status: int | None, found: Kind | None) -> Kind | None:
    """Return the class that the message names, if it names one that its codes and its status do not exclude."""
    is_rate = found is LMRateLimitError or status == 429
    if (
        not (is_rate and "resource_exhausted" in names)
        and found is not LMUnsupportedModelError
        and _SPENT.search(words)
    ):
        return LMBillingError  # of Gemini, the same words speak of a rate
    if found in (None, LMInvalidRequestError, LMServerError):
        if status in (None, 400) and _KEY.search(words):
            return LMAuthError
        if status in _LENGTH_STATUSES and is_about_length(words):
            return LMContextWindowExceededError
        if found is None and status == 404 and is_about_model(words, *names):
            return LMUnsupportedModelError
        if found is None and status in (None, 400) and _RATE.search(words):
            return LMRateLimitError
    return None


def is_about_length(words: str) -> bool:
    """Return whether words (in lower case) say that the prompt is too long for the model."""
    if _RATE.search(words):
        return False
    if _LENGTH.search(words):
        return True
    return "token" in words and ("limit" in words or "exceed" in words) and not _OUTPUT.search(words)


def is_about_model(words: str, *names: str) -> bool:
    """Return whether words (in lower case) say that the model does not exist."""
    whole = " ".join((words, *names))
    return "model" in whole and any(marker in whole for marker in _MODEL_GONE)


def _name(code: str) -> str:
    """Return a code without what services put around it: `com.amazonaws#Name`, `Name:http://...`."""
    return code.rpartition("#")[2].partition(":")[0].strip().lower()


def _number(names: Sequence[str]) -> int | None:
    return next((int(name) for name in names if len(name) == 3 and name.isdecimal() and name[0] in "45"), None)
