"""`Provider`: one provider of models, and how its dialect deviates. Facts only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .clouds.cloud_host import CloudHost

DialectName = Literal["openai", "responses", "anthropic", "gemini"]


@dataclass(frozen=True, slots=True, eq=False)  # one object each: compared and hashed by identity
class Provider:
    """One provider: `id` is DSPy's own name for it (the key of its router's settings)."""

    prefix: str
    id: str
    dialect: DialectName
    base_url: str
    key_names: tuple[str, ...] = ()
    placeholder_key: str | None = None
    max_tokens_field: str = "max_tokens"
    namespaces: tuple[str, ...] = ()  # in the model table
    auth: Literal["bearer", "x-api-key", "x-goog-api-key", "api-key"] = "bearer"
    reasoning: Literal["effort", "openrouter", "deepseek", "kimi"] = "effort"
    efforts: tuple[str, ...] = ()  # the levels the server really has; empty: all
    always_reasons: bool = False  # its models cannot be told not to
    replays_reasoning: bool = False
    blank_reasoning: bool = False
    user_field: str = "user"
    routes_prompt_cache: bool = False
    native: bool = True
    by_lm15: bool = False  # DSPy's own library writes its requests, here too
    host: CloudHost | None = None
    path: str = ""  # of a completion, where the model is named in it; else the dialect's
    is_spelled_by_id: bool = False  # in DSPy its models are "id:name"

    @property
    def url_names(self) -> tuple[str, ...]:
        """The environment variables that move the endpoint, in order."""
        name = self.prefix.replace("-", "_").upper()
        return () if self.host is not None else (f"{name}_BASE_URL", f"{name}_API_BASE")

    def dspys_name(self, model: str) -> str:
        """Return how DSPy calls a model of this provider."""
        return f"{self.id}:{model}" if self.is_spelled_by_id else f"{self.prefix}/{model}"
