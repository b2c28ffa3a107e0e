"""Errors as providers and servers send them, and what each must mean on both routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dspex import errors
from dspex.errors import LMError


@dataclass(frozen=True)
class Recorded:
    """One error as it came, and what it must be."""

    sender: str
    what: str
    status: int
    body: bytes
    kind: type[LMError]
    is_anthropic: bool = False

    @property
    def id(self) -> str:
        return f"{self.sender}: {self.what}".replace(" ", "-")

    @property
    def is_retried(self) -> bool:
        return self.kind.retryable == "now"

    @property
    def is_failed_over(self) -> bool:
        return self.is_retried or self.kind in PASSED_ON or self.kind is errors.LMProviderError


PASSED_ON = (errors.LMAuthError, errors.LMBillingError, errors.LMUnsupportedModelError)
AUTH, BILLING, RATE = errors.LMAuthError, errors.LMBillingError, errors.LMRateLimitError
LENGTH, MODEL, BAD = errors.LMContextWindowExceededError, errors.LMUnsupportedModelError, errors.LMInvalidRequestError
SERVER, LATE, NONE = errors.LMServerError, errors.LMTimeoutError, errors.LMProviderError


def _error(message: str, type: Any = None, code: Any = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


def _anthropic(type: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def _vllm(message: str, type: str, code: int) -> dict[str, Any]:
    return {"object": "error", "message": message, "type": type, "param": None, "code": code}


def _gemini(message: str, status: str, code: int) -> list[dict[str, Any]]:
    return [{"error": {"code": code, "message": message, "status": status}}]


def _detail(*places: str, input: str = "") -> dict[str, Any]:
    return {"detail": [{"type": "missing", "loc": [*places], "msg": "Field required", "input": input}]}


def _raw(message: dict[str, Any]) -> dict[str, Any]:
    said = {"raw": json.dumps(message), "provider_name": "DeepInfra"}
    return {"error": {"message": "Provider returned error", "code": 400, "metadata": said}, "user_id": "u"}


_TGI_LONG = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 200"
)
_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_TPM = "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000."
_ENDS = "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000 tokens"
_VLLM_LONG = (
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4800 in the messages"
)
_ANTHROPIC_RATE = "This request would exceed your organization's rate limit of 30,000 input tokens per minute"
_USED_UP = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
_SPENT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade."
_INPUT = "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length"
_LLAMA = "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it"
_LMSTUDIO = "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context"
_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
_BLOCKED = b"<!DOCTYPE html><title>Sign in</title>"

_JSON: list[tuple[str, str, int, Any, type[LMError]]] = [
    (
        "OpenAI",
        "wrong key",
        401,
        _error("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
        AUTH,
    ),
    ("OpenAI", "rate", 429, _error(_TPM, "tokens", "rate_limit_exceeded"), RATE),
    ("OpenAI", "quota", 429, _error(_QUOTA, "insufficient_quota", "insufficient_quota"), BILLING),
    (
        "OpenAI",
        "billing stopped",
        400,
        _error("Billing hard limit has been reached", code="billing_hard_limit_reached"),
        BILLING,
    ),
    (
        "OpenAI",
        "context",
        400,
        _error("Your input exceeds the context window.", code="context_length_exceeded"),
        LENGTH,
    ),
    ("OpenAI", "no such model", 404, _error("The model `x` does not exist", code="model_not_found"), MODEL),
    ("OpenAI", "bad parameter", 400, _error("Unsupported parameter: 'x'.", "invalid_request_error"), BAD),
    (
        "OpenAI",
        "too many tokens asked",
        400,
        _error("max_tokens is too large: 9000. At most 4096 completion tokens"),
        BAD,
    ),
    ("OpenAI", "server", 500, _error("The server had an error.", "server_error"), SERVER),
    ("Azure", "deployment", 404, _error("The API deployment does not exist.", code="DeploymentNotFound"), MODEL),
    ("Azure", "filter", 400, _error("The response was filtered", code="content_filter"), BAD),
    ("vLLM", "context", 400, _vllm(_VLLM_LONG, "BadRequestError", 400), LENGTH),
    ("vLLM", "no such model", 404, _vllm("The model `x` does not exist.", "NotFoundError", 404), MODEL),
    ("vLLM", "in a success", 200, _vllm("Internal Server Error", "InternalServerError", 500), SERVER),
    ("vLLM", "validation", 422, _detail("body", "messages"), BAD),
    (
        "sglang",
        "context",
        400,
        _vllm(
            "The input (5000 tokens) is longer than the model's context length (4096 tokens).", "BadRequestError", 400
        ),
        LENGTH,
    ),
    (
        "sglang",
        "in a success",
        200,
        {"object": "error", "message": "Input length (5000 tokens) exceeds the maximum allowed length (4096 tokens)."},
        LENGTH,
    ),
    (
        "Ollama",
        "context",
        400,
        _error("prompt too long; exceeded max context length by 12 tokens", "api_error"),
        LENGTH,
    ),
    ("Ollama", "no such model", 404, _error("model 'x' not found", "api_error"), MODEL),
    ("llama.cpp", "context", 400, _error(_LLAMA, "exceed_context_size_error", 400, n_ctx=4096), LENGTH),
    ("llama.cpp", "loading", 503, _error("Loading model", "unavailable_error", 503), SERVER),
    ("TGI", "context", 422, {"error": _TGI_LONG, "error_type": "validation"}, LENGTH),
    ("TGI", "overloaded", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, RATE),
    ("LM Studio", "context", 400, {"error": _LMSTUDIO}, LENGTH),
    (
        "Gemini",
        "context",
        400,
        _gemini(
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "INVALID_ARGUMENT",
            400,
        ),
        LENGTH,
    ),
    (
        "Gemini",
        "wrong key",
        400,
        _gemini("API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", 400),
        AUTH,
    ),
    ("Gemini", "rate", 429, _gemini(_QUOTA, "RESOURCE_EXHAUSTED", 429), RATE),
    ("Gemini", "overloaded", 503, _gemini("The model is overloaded.", "UNAVAILABLE", 503), SERVER),
    ("Gemini", "late", 504, _gemini("Deadline expired.", "DEADLINE_EXCEEDED", 504), LATE),
    ("Bedrock", "context", 400, {"message": "Input is too long for requested model."}, LENGTH),
    (
        "Bedrock",
        "rate as 400",
        400,
        {"__type": "com.amazon.coral.service#ThrottlingException", "message": "Rate exceeded"},
        RATE,
    ),
    ("Bedrock", "rate of tokens", 429, {"message": "Too many tokens, please wait before trying again."}, RATE),
    ("Bedrock", "key", 403, {"Message": "The security token included in the request is invalid."}, AUTH),
    (
        "Mistral",
        "context",
        400,
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
            "code": "3051",
        },
        LENGTH,
    ),
    ("Mistral", "validation", 422, {"object": "error", "message": _detail("body", "temperature"), "code": None}, BAD),
    (
        "Cohere",
        "context",
        400,
        {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"},
        LENGTH,
    ),
    (
        "Groq",
        "request over its rate",
        413,
        _error("Request too large on tokens per minute (TPM): Limit 6000", "tokens", "rate_limit_exceeded"),
        RATE,
    ),
    ("DeepSeek", "spent", 402, _error("Insufficient Balance", "unknown_error", "invalid_request_error"), BILLING),
    (
        "xAI",
        "spent",
        403,
        {"code": "The caller does not have permission", "error": "Your team has used all available credits"},
        BILLING,
    ),
    (
        "xAI",
        "context",
        400,
        {"error": "This model's maximum prompt length is 131072 but the request contains 200000 tokens."},
        LENGTH,
    ),
    ("OpenRouter", "rate in a success", 200, {"error": {"code": 429, "message": "Rate limited"}}, RATE),
    ("OpenRouter", "in a choice", 200, {"choices": [{"error": {"code": 502, "message": "upstream"}}]}, SERVER),
    ("OpenRouter", "spent", 402, {"error": {"code": 402, "message": "This request requires more credits"}}, BILLING),
    ("OpenRouter", "context", 400, {"error": {"code": 400, "message": _ENDS}}, LENGTH),
    ("OpenRouter", "context upstream", 400, _raw(_error("prompt is too long", "invalid_request_error")), LENGTH),
    ("DashScope", "spent as 400", 400, {"code": "Arrearage", "message": "Access denied.", "request_id": "r"}, BILLING),
    (
        "Z.AI",
        "spent",
        429,
        {"error": {"code": "1113", "message": "Insufficient balance or no resource package."}},
        BILLING,
    ),
    ("Moonshot", "spent", 429, _error("Your account is suspended", "exceeded_current_quota_error"), BILLING),
    (
        "Moonshot",
        "context",
        400,
        _error("Invalid request: Your request exceeded model token limit: 8192", "invalid_request_error"),
        LENGTH,
    ),
    ("FastAPI", "loading", 503, {"detail": "Model is loading"}, SERVER),
    ("FastAPI", "in a success", 200, {"detail": "Model is loading"}, SERVER),
]
_ANTHROPIC: list[tuple[str, str, int, Any, type[LMError]]] = [
    (
        "Anthropic",
        "context",
        400,
        _anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
        LENGTH,
    ),
    ("Anthropic", "context and answer", 400, _anthropic("invalid_request_error", _INPUT), LENGTH),
    ("Anthropic", "spent as 400", 400, _anthropic("invalid_request_error", _SPENT), BILLING),
    ("Anthropic", "limit of its own", 400, _anthropic("invalid_request_error", _USED_UP), BILLING),
    ("Anthropic", "rate of tokens", 429, _anthropic("rate_limit_error", _ANTHROPIC_RATE), RATE),
    ("Anthropic", "overloaded", 529, _anthropic("overloaded_error", "Overloaded"), SERVER),
    ("Anthropic", "overloaded in a success", 200, _anthropic("overloaded_error", "Overloaded"), SERVER),
    ("Anthropic", "key", 401, _anthropic("authentication_error", "invalid x-api-key"), AUTH),
    ("Anthropic", "no such model", 404, _anthropic("not_found_error", "model: x was not found"), MODEL),
    ("Anthropic", "too large", 413, _anthropic("request_too_large", "Request exceeds the maximum size"), BAD),
]
_TEXTS: list[tuple[str, str, int, bytes, type[LMError]]] = [
    ("proxy", "page", 502, _PAGE, SERVER),
    ("proxy", "page in a success", 200, _BLOCKED, NONE),
    ("proxy", "text", 503, b"upstream connect error or disconnect/reset before headers", SERVER),
    ("proxy", "nothing", 429, b"", RATE),
    (
        "proxy",
        "an event",
        400,
        b'event: error\ndata: {"error": {"code": "insufficient_quota", "message": "no"}}\n\n',
        BILLING,
    ),
    ("llama.cpp", "text, context", 400, b"the request exceeds the available context size", LENGTH),
]


def _all() -> Iterator[Recorded]:
    for sender, what, status, body, kind in _JSON:
        yield Recorded(sender, what, status, json.dumps(body).encode(), kind)
    for sender, what, status, body, kind in _ANTHROPIC:
        yield Recorded(sender, what, status, json.dumps(body).encode(), kind, is_anthropic=True)
    for sender, what, status, text, kind in _TEXTS:
        yield Recorded(sender, what, status, text, kind)


RECORDED = tuple(sorted(_all(), key=lambda each: each.sender.lower()))


def table() -> str:
    """Return the table of the documentation."""
    lines = ["| Sender | Error | Status | Class | Retried | Fails over |", "|---|---|---|---|---|---|"]
    for each in RECORDED:
        said = ["yes" if value else "no" for value in (each.is_retried, each.is_failed_over)]
        lines.append(f"| {each.sender} | {each.what} | {each.status} | `{each.kind.__name__}` | {' | '.join(said)} |")
    return "\n".join(lines)
