"""Recognize what a caller gives as an embedder: a model, its name, a `dspy.Embedder`, or a function of texts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from .. import defaults
from ..errors import LMUnsupportedFeatureError, SettingsError
from ..lm.dspy_lms import is_dspy_lm
from ..lm.named_lms import is_name, lm_from
from ..lm.record import LM
from ..unshown_values import UnshownOptions

EmbeddingFunction = Callable[[list[str]], Any]  # from texts to as many vectors, or an awaitable of these
# Of `dspy.Embedder(**kwargs)`: what says whom to ask. The rest is sent.
_CONNECTION = {
    "api_key": "api_key",
    "api_base": "api_base",
    "base_url": "api_base",
    "timeout": "timeout",
    "num_retries": "retries",
    "max_retries": "retries",
    "headers": "headers",
    "extra_headers": "headers",
}


@dataclass(frozen=True, slots=True)
class GivenEmbedder:
    """Whom to ask for vectors: an LM or a function, and with which defaults."""

    lm: LM | None = None
    function: EmbeddingFunction | None = None
    batch_size: int | None = None
    cache: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells its vectors from those of others: the model; empty for a function."""
        return "" if self.lm is None else self.lm.model


def given_embedder(given: Any) -> GivenEmbedder:
    """Return whom to ask.

    Raises:
        SettingsError: it is no embedder.
        UnknownName: a name that no configured LM has, or a provider that does not exist.
        LMUnsupportedFeatureError: a `dspy.Embedder` with an option that could not be sent.
    """
    if _is_dspy_embedder(given):
        return _of_dspy(given)
    if isinstance(given, str):
        return GivenEmbedder(_lm_of(given))
    if isinstance(given, LM) or isinstance(getattr(given, "lm", None), LM):
        return GivenEmbedder(lm_from(given, "embedder"))
    if callable(given) and not is_dspy_lm(given) and not isinstance(given, type):
        return GivenEmbedder(function=cast("EmbeddingFunction", given))
    raise SettingsError(
        f"An embedder is a model ('openai/text-embedding-3-small', the name of a configured LM, a dspex.LM), a "
        f"dspy.Embedder, or a function from texts to vectors, not a {type(given).__name__}.",
        key="embedder",
    )


def _lm_of(model: str) -> LM:
    """Return the LM of a name or of a model: a configured one, with its endpoint and key, goes first."""
    if is_name(model):
        return defaults.named_lm(model)
    return defaults.configured_lms().of_model(model) or lm_from(model)


def _is_dspy_embedder(given: Any) -> bool:
    kind = getattr(sys.modules.get("dspy"), "Embedder", None)
    return isinstance(kind, type) and isinstance(given, kind)


def _of_dspy(given: Any) -> GivenEmbedder:
    options = UnshownOptions({name: value for name, value in given.default_kwargs.items() if value is not None})
    if not isinstance(given.model, str):
        return GivenEmbedder(None, _with_options(given.model, options), given.batch_size)
    model = given.model if "/" in given.model else f"openai/{given.model}"  # as LiteLLM reads it
    connection: Any = UnshownOptions(
        {ours: options.pop(theirs) for theirs, ours in _CONNECTION.items() if theirs in options}
    )
    lm = _lm_of(model)
    odd = sorted(name for name in options if name.startswith(("api_", "azure_", "aws_", "vertex_", "custom_")))
    if odd:
        raise LMUnsupportedFeatureError(f"The dspy.Embedder has {odd[0]}=, which DSPex does not send.", model=model)
    asked = lm.replace(**connection) if connection else lm
    return GivenEmbedder(asked, None, given.batch_size, bool(given.caching), options)


def keyless_state(embedder: Any) -> dict[str, Any] | None:
    """Return the attributes of a `dspy.Embedder` as a worker may have them: an `LM` in place of address and key.

    None where it holds neither: its model's name is enough, for workers ask this process what it stands for.
    """
    if not isinstance(embedder.model, str) or not any(embedder.default_kwargs.get(name) for name in _CONNECTION):
        return None
    found = _of_dspy(embedder)
    return {**vars(embedder), "model": found.lm, "default_kwargs": dict(found.options)}


def _with_options(function: Callable[..., Any], options: Mapping[str, Any]) -> EmbeddingFunction:
    def embed(texts: list[str]) -> Any:
        return function(texts, **options)

    return embed if options else function
