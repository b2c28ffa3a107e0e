"""The providers that DSPy's own client reaches beside the common ones: clouds, and servers with dialects of their own.

Their requests are written by the library that DSPy carries (`dspy_lm15`), so that no table of theirs is kept here.
Facts: DSPy 3.4.1, _vendor/lm15/access.py and registry.py, clients/model_metadata.
"""

from __future__ import annotations

from typing import Any

from .clouds import cloud_host
from .provider import DialectName, Provider

_META_KEY = "META_API_KEY"
_MOONSHOT_KEYS = ("MOONSHOTAI_API_KEY", "MOONSHOT_API_KEY")
_BEDROCK_KEY = "AWS_BEARER_TOKEN_BEDROCK"


def _server(id: str, dialect: DialectName, base_url: str, *key_names: str, **facts: Any) -> Provider:
    return Provider(id, id, dialect, base_url, key_names, by_lm15=True, is_spelled_by_id=True, **facts)


def _cloud(id: str, dialect: DialectName, host: cloud_host.CloudHost, *key_names: str, **facts: Any) -> Provider:
    return _server(id, dialect, "", *key_names, host=host, **facts)


MORE_PROVIDERS = (
    _server("sglang", "openai", "http://localhost:30000/v1", placeholder_key="EMPTY", namespaces=("sglang",)),
    _server("zai", "openai", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", namespaces=("zai",)),
    _server("meta", "responses", "https://api.meta.ai/v1", _META_KEY, namespaces=("meta",)),
    _server("meta-chat", "openai", "https://api.meta.ai/v1", _META_KEY, namespaces=("meta",)),
    _server("meta-anthropic", "anthropic", "https://api.meta.ai/v1", _META_KEY, namespaces=("meta",)),
    _server(
        "deepseek-anthropic",
        "anthropic",
        "https://api.deepseek.com/anthropic/v1",
        "DEEPSEEK_API_KEY",
        namespaces=("deepseek",),
        auth="x-api-key",
    ),
    _server(
        "moonshotai-responses",
        "responses",
        "https://api.moonshot.ai/v1",
        *_MOONSHOT_KEYS,
        namespaces=("moonshot", "moonshotai"),
    ),
    _server(
        "moonshotai-anthropic",
        "anthropic",
        "https://api.moonshot.ai/anthropic/v1",
        *_MOONSHOT_KEYS,
        namespaces=("moonshot", "moonshotai"),
    ),
    Provider(
        "azure",
        "azure-chat",
        "openai",
        "",
        ("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
        namespaces=("azure",),
        auth="api-key",
        by_lm15=True,
        host=cloud_host.AZURE,
        routes_prompt_cache=True,
    ),
    _cloud(
        "azure-anthropic",
        "anthropic",
        cloud_host.AZURE_ANTHROPIC,
        "ANTHROPIC_FOUNDRY_API_KEY",
        namespaces=("azure_ai",),
        auth="x-api-key",
    ),
    _cloud(
        "aws-anthropic",
        "anthropic",
        cloud_host.AWS_ANTHROPIC,
        "ANTHROPIC_AWS_API_KEY",
        namespaces=("aws-anthropic",),
        auth="x-api-key",
    ),
    _cloud(
        "bedrock-anthropic",
        "anthropic",
        cloud_host.BEDROCK_ANTHROPIC,
        _BEDROCK_KEY,
        namespaces=("bedrock",),
        auth="x-api-key",
    ),
    _cloud("bedrock-chat", "openai", cloud_host.BEDROCK_CHAT, _BEDROCK_KEY, namespaces=("bedrock",)),
    _cloud(
        "bedrock-mantle-chat", "openai", cloud_host.BEDROCK_MANTLE_CHAT, _BEDROCK_KEY, namespaces=("bedrock_mantle",)
    ),
    _cloud("vertex", "gemini", cloud_host.VERTEX, namespaces=("vertex_ai", "gemini")),
    _cloud(
        "vertex-anthropic",
        "anthropic",
        cloud_host.VERTEX_ANTHROPIC,
        namespaces=("vertex_ai",),
        path="/publishers/anthropic/models/{model}:rawPredict",
    ),
    _cloud(
        "vertex-express",
        "gemini",
        cloud_host.VERTEX_EXPRESS,
        "GOOGLE_API_KEY",
        namespaces=("vertex_ai", "gemini"),
        auth="x-goog-api-key",
    ),
)
"""In the order of DSPy's registry."""
