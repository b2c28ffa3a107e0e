"""The providers that an LM's model string may name: their URLs and how their dialect deviates.

Facts only, taken from DSPy 3.4.1's provider tables so that both routes send the same bytes; no I/O, no state.
`native` False: the parent forwards a worker's requests to it but does not speak its dialect itself.
"""

from __future__ import annotations

import functools

from .more_providers import MORE_PROVIDERS
from .provider import Provider as Provider


def _openai(prefix: str, id: str, base_url: str, *key_names: str, **facts: object) -> Provider:
    return Provider(prefix, id, "openai", base_url, key_names, **facts)  # type: ignore[arg-type]


_OLLAMA_LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")

PROVIDERS: dict[str, Provider] = {
    provider.prefix: provider
    for provider in (
        _openai(
            "openai",
            "openai-chat",
            "https://api.openai.com/v1",
            "OPENAI_API_KEY",
            max_tokens_field="max_completion_tokens",
            namespaces=("openai",),
            routes_prompt_cache=True,
        ),
        Provider(
            "anthropic",
            "anthropic",
            "anthropic",
            "https://api.anthropic.com/v1",
            ("ANTHROPIC_API_KEY",),
            namespaces=("anthropic",),
            auth="x-api-key",
        ),
        _openai(
            "hosted_vllm",
            "vllm",
            "http://localhost:8000/v1",
            placeholder_key="EMPTY",
            namespaces=("hosted_vllm", "vllm"),
        ),
        _openai(
            "ollama_chat",
            "ollama",
            "http://localhost:11434/v1",
            placeholder_key="ollama",
            namespaces=("ollama",),
            efforts=_OLLAMA_LEVELS,
        ),
        _openai(
            "ollama",
            "ollama",
            "http://localhost:11434/v1",
            placeholder_key="ollama",
            namespaces=("ollama",),
            efforts=_OLLAMA_LEVELS,
        ),
        _openai("groq", "groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", namespaces=("groq",)),
        _openai(
            "openrouter",
            "openrouter",
            "https://openrouter.ai/api/v1",
            "OPENROUTER_API_KEY",
            namespaces=("openrouter",),
            reasoning="openrouter",
            routes_prompt_cache=True,
        ),
        _openai(
            "deepseek",
            "deepseek",
            "https://api.deepseek.com",
            "DEEPSEEK_API_KEY",
            namespaces=("deepseek",),
            reasoning="deepseek",
            replays_reasoning=True,
            blank_reasoning=True,
            user_field="user_id",
        ),
        _openai(
            "xai",
            "xai",
            "https://api.x.ai/v1",
            "XAI_API_KEY",
            namespaces=("xai",),
            reasoning="deepseek",
            always_reasons=True,
        ),
        _openai(
            "moonshot",
            "moonshotai",
            "https://api.moonshot.ai/v1",
            "MOONSHOTAI_API_KEY",
            "MOONSHOT_API_KEY",
            max_tokens_field="max_completion_tokens",
            namespaces=("moonshot", "moonshotai"),
            reasoning="kimi",
            efforts=("low", "high", "max"),
            replays_reasoning=True,
            user_field="safety_identifier",
            routes_prompt_cache=True,
        ),
        Provider(
            "gemini",
            "gemini",
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta",
            ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            namespaces=("gemini",),
            auth="x-goog-api-key",
            by_lm15=True,
        ),
        # The embedded model: the address is a name that never resolves; the client puts the running server's in.
        _openai("local", "vllm", "http://embedded.invalid/v1", placeholder_key="EMPTY"),
        *MORE_PROVIDERS,
    )
}

KEY_NAMES = tuple(
    dict.fromkeys(
        name
        for provider in PROVIDERS.values()
        if provider.host is None
        or provider.host.cloud != "aws"  # AWS's own clients would take a placeholder for a token
        for name in provider.key_names
    )
)
"""The environment's names of all providers' keys, for which workers see a placeholder."""


@functools.lru_cache(maxsize=256)
def reached_by_dspy(prefix: str) -> Provider:
    """Return a provider that only DSPy's own clients, in workers, know how to reach."""
    name = "".join(letter if letter.isalnum() else "_" for letter in prefix).upper()
    return Provider(prefix, prefix, "openai", "", (f"{name}_API_KEY",), native=False)
