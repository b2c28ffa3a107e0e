"""The options that an `LM` takes beside its model, by name and type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict


class ProviderOptions(TypedDict, total=False):
    """What is sent to the model with a request; None leaves it out."""

    max_completion_tokens: int | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    stop: str | Sequence[str] | None
    logprobs: bool | int | None
    top_logprobs: int | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: Mapping[str, Any] | None
    reasoning_effort: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    service_tier: str | None
    user: str | None
    store: bool | None
    logit_bias: Mapping[str, float] | None
    metadata: Mapping[str, Any] | None
    verbosity: str | None
    moderation: Any
    provider: Any
    prediction: Any


class ClientOptions(TypedDict, total=False):
    """What DSPex's own client does with a request."""

    n: int | None  # answers to each request, default 1
    timeout: float  # seconds of one attempt, default 600
    retries: int  # further attempts, default 3
    headers: Mapping[str, str] | Iterable[tuple[str, str]]
    proxy: str | None
    structured_outputs: bool  # default: True for the embedded model only
    function_calling: bool | None  # None: what the model table says
    reasoning: bool | None  # None: what the model table says
    private: bool  # cache entries are kept apart by key
    cache_ttl: float | None  # seconds
    requests_per_minute: float | None
    price: tuple[float, float] | None  # USD per million input and output tokens
    direct: bool  # workers connect by themselves, with the key


class AliasedOptions(TypedDict, total=False):
    """Names that other libraries use for options."""

    num_retries: int
    base_url: str | None
    extra_headers: Mapping[str, str] | Iterable[tuple[str, str]]
    num_generations: int | None


class GenerationOptions(ProviderOptions, total=False):
    """What a call's `config`, or a module of DSPy's, may say of a request."""

    temperature: float | None
    max_tokens: int | None


ALIASES = {"num_retries": "retries", "base_url": "api_base", "extra_headers": "headers", "num_generations": "n"}
GENERATION_OPTIONS = GenerationOptions.__optional_keys__
