"""The options that an `LM` takes beside its model, by name and type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
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
    response_format: Mapping[str, Any] | type | None  # a class is a pydantic model
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
    cache_control_injection_points: Sequence[Mapping[str, Any]] | None  # which messages a provider is to cache
    extra_body: Mapping[str, Any] | None  # members of the request's body, of any name


class ServerOptions(TypedDict, total=False):
    """What some servers take beside that, sent as it is; `extra_body` sends what is not among them."""

    min_p: float | None
    top_a: float | None
    typical_p: float | None
    repetition_penalty: float | None
    length_penalty: float | None
    min_tokens: int | None
    best_of: int | None
    ignore_eos: bool | None
    stop_token_ids: Sequence[int] | None
    bad_words: Sequence[str] | None
    include_stop_str_in_output: bool | None
    skip_special_tokens: bool | None
    spaces_between_special_tokens: bool | None
    add_generation_prompt: bool | None
    continue_final_message: bool | None
    truncate_prompt_tokens: int | None
    prompt_logprobs: int | None
    priority: int | None
    documents: Sequence[Mapping[str, Any]] | None
    chat_template: str | None
    chat_template_kwargs: Mapping[str, Any] | None
    mm_processor_kwargs: Mapping[str, Any] | None
    guided_json: Any
    guided_regex: str | None
    guided_choice: Sequence[str] | None
    guided_grammar: str | None
    guided_decoding_backend: str | None
    thinking: Mapping[str, Any] | None
    enable_thinking: bool | None
    reasoning_format: str | None
    include_reasoning: bool | None
    prompt_cache_options: Mapping[str, Any] | None
    safety_identifier: str | None
    user_id: str | None
    modalities: Sequence[str] | None
    audio: Mapping[str, Any] | None
    web_search_options: Mapping[str, Any] | None
    search_parameters: Mapping[str, Any] | None
    models: Sequence[str] | None
    preset: str | None
    route: str | None
    transforms: Sequence[str] | None
    plugins: Sequence[Mapping[str, Any]] | None
    usage: Mapping[str, Any] | None
    tags: Sequence[str] | None
    guardrails: Any
    keep_alive: Any
    think: Any
    options: Mapping[str, Any] | None  # of Ollama
    num_ctx: int | None
    cache_control: Mapping[str, Any] | None
    output_config: Mapping[str, Any] | None
    context_management: Mapping[str, Any] | None
    container: Any
    mcp_servers: Sequence[Mapping[str, Any]] | None
    inference_geo: str | None


class ConnectionOptions(TypedDict, total=False):
    """How an endpoint is connected to."""

    proxy: str | None  # its URL; None or "": none; left out: the environment's
    ssl_verify: bool | str | PathLike[str] | None  # a path: whom to trust; False: nothing is verified
    ssl_certificate: str | PathLike[str] | Sequence[str | PathLike[str] | None] | None  # (certificate, key, password)
    max_connections: int | None  # at a time; None: half of the process's descriptors, 1,000 at most


class ClientOptions(ConnectionOptions, total=False):
    """What DSPex's own client does with a request."""

    model_type: str | None  # "chat" (default), "responses" for OpenAI's Responses API, "text" with direct=True
    n: int | None  # answers to each request, default 1
    timeout: float  # seconds of one attempt, default 600
    retries: int  # further attempts, default 3
    headers: Mapping[str, str] | Iterable[tuple[str, str]]
    structured_outputs: bool | None  # None: what the model table says; True for the embedded model
    function_calling: bool | None  # None: what the model table says
    reasoning: bool | Mapping[str, Any] | None  # None: what the model table says; a mapping is sent
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
    verify: bool | str | PathLike[str] | None
    cert: str | PathLike[str] | Sequence[str | PathLike[str] | None] | None


class GenerationOptions(ProviderOptions, ServerOptions, total=False):
    """What a call's `config`, or a module of DSPy's, may say of a request."""

    temperature: float | None
    max_tokens: int | None
    reasoning: Mapping[str, Any] | None  # OpenRouter's word for it


ALIASES = {
    "num_retries": "retries",
    "base_url": "api_base",
    "extra_headers": "headers",
    "num_generations": "n",
    "verify": "ssl_verify",
    "cert": "ssl_certificate",
}
GENERATION_OPTIONS = GenerationOptions.__optional_keys__
