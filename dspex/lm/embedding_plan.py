"""What is asked of an endpoint of embeddings, and which LMs can be asked at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import LMConfigurationError, LMUnsupportedFeatureError
from .record import LM
from .sent_options import EXTRA

_EMBEDDED = "local"  # the model that runs here: its server is started without embeddings


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """One request for the vectors of some texts."""

    texts: Sequence[str]
    dimensions: int | None = None
    encoding_format: str = "float"
    cache: bool = True
    deadline: float | None = None  # a `time.monotonic()` point
    members: Mapping[str, Any] = field(default_factory=dict)  # further members of the body

    def members_for(self, lm: LM) -> dict[str, Any]:
        """Return the members of the body beside texts and model: the record's, and over them those of the call."""
        own = {} if self.dimensions is None else {"dimensions": self.dimensions}
        return {**_sent(lm), **self.members, **own}


def require_embeddings(lm: LM) -> None:
    """Check that the parent can ask an LM for embeddings.

    Raises:
        LMUnsupportedFeatureError: another format than OpenAI's, a worker's own connection, or an option that
            embeddings do not take.
        LMConfigurationError: it falls back to another model, whose vectors cannot be compared with its own.
    """
    if lm.provider.dialect != "openai" or lm.provider.prefix == _EMBEDDED or lm.direct or not lm.provider.native:
        raise LMUnsupportedFeatureError(
            f"{lm.model!r} has no embeddings in OpenAI's format, which is what the host asks for. Many providers have "
            f"one: LM('openai/<name>', api_base=...). Else give a function from texts to vectors.",
            model=lm.model,
            provider=lm.provider.id,
        )
    odd = sorted(lm.options().keys() - {"user", EXTRA})
    if odd:
        raise LMUnsupportedFeatureError(
            f"Embeddings take no {odd[0]}: leave it out of LM(). Members of the body go into extra_body.",
            model=lm.model,
            provider=lm.provider.id,
        )
    other = next((fallback for fallback in lm.fallbacks if fallback.name != lm.name), None)
    if other is not None:
        raise LMConfigurationError(
            f"{lm.model!r} falls back to {other.model!r}, and vectors of different models cannot be compared: for "
            f"embeddings, fall back to the same model at another endpoint.",
            model=lm.model,
        )


def _sent(lm: LM) -> dict[str, Any]:
    options = lm.options()
    extra = options.pop(EXTRA, None) or {}
    return {**options, **extra}
