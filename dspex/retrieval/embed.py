"""`embed`: the vectors of texts, from a model's endpoint or from a function, in batches and in order.

Requests are the LM client's: its cache, retries, limits, budgets and events hold for them as for any other, and the
same texts asked by `dspy.Embedder` in a worker share the cache's entries. Batches are asked one after the other.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from .. import defaults
from ..errors import InvalidInput, LMProviderError
from ..lm.embedding_plan import EmbeddingPlan, require_embeddings
from .given_embedder import EmbeddingFunction, GivenEmbedder, given_embedder
from .vectors import as_callers_expect, checked_texts, checked_vectors

if TYPE_CHECKING:
    from ..lm.dialects.embeddings import Vector

EncodingFormat = Literal["float", "base64"]
BATCH = 200  # texts of one request: DSPy's number
BATCH_MOST = 2048  # what OpenAI takes
_RESERVED = ("model", "input", "encoding_format", "dimensions", "stream")


def embed(
    model: Any,
    texts: str | Iterable[str],
    *,
    batch_size: int | None = None,
    dimensions: int | None = None,
    encoding_format: EncodingFormat = "float",
    cache: bool = True,
    timeout: float | None = None,
    extra_body: Mapping[str, Any] | None = None,
) -> Any:
    """Return the texts' vectors: a float32 numpy array with a row for each; of one text given as a str, that row alone.

    Without numpy, lists of floats. Of no texts, an array of no rows: nothing is asked.

    Args:
        model: `"provider/name"`, the name of a configured LM, a `dspex.LM`, a `dspy.Embedder`, or a function from a
            list of texts to their vectors. Providers are those with an endpoint of OpenAI's format.
        texts: One text, or several.
        batch_size: Texts of one request, default 200, at most 2048.
        dimensions: How many numbers a vector is to have, for models that can choose.
        encoding_format: "base64" is a quarter of the bytes, from endpoints that have it.
        cache: Whether answers may come from the cache, and go there.
        timeout: Seconds for all of it; None for no limit but the LM's own for each attempt.
        extra_body: Further members of each request's body, such as `{"input_type": "query"}`.

    Raises:
        InvalidInput: texts or options that cannot be, or a function's answer that is no vectors.
        SettingsError, UnknownName: no such embedder.
        LMUnsupportedFeatureError, LMConfigurationError: an LM that cannot be asked for embeddings.
        LMError: the endpoint refused, or gave other vectors than were asked for.
        BudgetExceeded: the budget of an open account is spent.
    """
    call = _call(model, batch_size, dimensions, encoding_format, cache, timeout, extra_body)
    found, is_single = call.texts(texts)
    return call.shaped([vector for batch in call.batches(found) for vector in call.ask(batch)], is_single)


async def aembed(
    model: Any,
    texts: str | Iterable[str],
    *,
    batch_size: int | None = None,
    dimensions: int | None = None,
    encoding_format: EncodingFormat = "float",
    cache: bool = True,
    timeout: float | None = None,
    extra_body: Mapping[str, Any] | None = None,
) -> Any:
    """`embed`, awaited; a function that blocks runs in a thread, one that is asynchronous is awaited.

    Raises:
        DspexError: as `embed`.
    """
    call = _call(model, batch_size, dimensions, encoding_format, cache, timeout, extra_body)
    found, is_single = call.texts(texts)
    return call.shaped([vector for batch in call.batches(found) for vector in await call.aask(batch)], is_single)


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """Whom to ask, and how: what `embed` and the indexes share."""

    given: GivenEmbedder
    batch_size: int = BATCH
    dimensions: int | None = None
    encoding_format: str = "float"
    cache: bool = True
    deadline: float | None = None
    members: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, embedder: Any) -> EmbeddingCall:
        """Return the call for an embedder with its own defaults.

        Raises:
            SettingsError, UnknownName, LMUnsupportedFeatureError, LMConfigurationError: as `embed`.
        """
        return _call(embedder, None, None, "float", True, None, None)

    def texts(self, given: str | Iterable[str]) -> tuple[list[str], bool]:
        """Return the texts, checked, and whether one was given alone."""
        is_single = isinstance(given, str)
        return checked_texts([given] if is_single else given), is_single

    def batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """Return the texts in the parts that are asked for at once."""
        return (list(texts[at : at + self.batch_size]) for at in range(0, len(texts), self.batch_size))

    def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """Return the vectors of checked texts."""
        return self.even([vector for batch in self.batches(texts) for vector in self.ask(batch)])

    async def avectors(self, texts: Sequence[str]) -> list[Vector]:
        """`vectors`, awaited."""
        return self.even([vector for batch in self.batches(texts) for vector in await self.aask(batch)])

    def ask(self, batch: list[str]) -> Sequence[Vector]:
        """Return the vectors of one batch."""
        if self.given.lm is not None:
            return defaults.client().embed(self.given.lm, self._plan(batch))
        made = self._function(batch)
        if inspect.isawaitable(made):
            if inspect.iscoroutine(made):
                made.close()
            raise InvalidInput("The embedder is asynchronous: use the awaited form.", field="embedder")
        return checked_vectors(made, len(batch))

    async def aask(self, batch: list[str]) -> Sequence[Vector]:
        """`ask`, awaited."""
        if self.given.lm is not None:
            return await defaults.client().aembed(self.given.lm, self._plan(batch))
        made = await asyncio.to_thread(self._function, batch)
        return checked_vectors(await made if inspect.isawaitable(made) else made, len(batch))

    def even(self, vectors: list[Vector]) -> list[Vector]:
        """Return the vectors of all batches.

        Raises:
            LMProviderError, InvalidInput: they are not of one length.
        """
        widths = {len(vector) for vector in vectors}
        if len(widths) > 1:
            what = f"vectors of {min(widths)} and of {max(widths)} numbers"
            if self.given.lm is None:
                raise InvalidInput(f"The embedder gave {what}.", field="embedder")
            raise LMProviderError(f"The endpoint of embeddings gave {what}.", model=self.given.lm.model)
        return vectors

    def shaped(self, vectors: list[Vector], is_single: bool) -> Any:
        """Return the vectors as callers expect them."""
        return as_callers_expect(self.even(vectors), is_single=is_single, width=self.dimensions or 0)

    def _plan(self, batch: list[str]) -> EmbeddingPlan:
        return EmbeddingPlan(batch, self.dimensions, self.encoding_format, self.cache, self.deadline, self.members)

    @property
    def _function(self) -> EmbeddingFunction:
        assert self.given.function is not None
        return self.given.function


def _call(
    model: Any,
    batch_size: int | None,
    dimensions: int | None,
    encoding_format: str,
    cache: bool,
    timeout: float | None,
    extra_body: Mapping[str, Any] | None,
) -> EmbeddingCall:
    given = given_embedder(model)
    options = dict(given.options)
    size = _whole("batch_size", batch_size or given.batch_size or BATCH if batch_size != 0 else 0, BATCH_MOST)
    wanted = options.pop("dimensions", None) if dimensions is None else dimensions
    form = options.pop("encoding_format", None) if encoding_format == "float" else encoding_format
    if (form or "float") not in get_args(EncodingFormat):
        raise InvalidInput(f"encoding_format is {form!r}; it is 'float' or 'base64'.", field="encoding_format")
    members = {**options, **_checked_members(extra_body)}
    if given.lm is not None:
        require_embeddings(given.lm)
    elif dimensions is not None or members:
        raise InvalidInput("A function makes its vectors by itself: it takes no dimensions and no extra_body.")
    return EmbeddingCall(
        given,
        size,
        None if wanted is None else _whole("dimensions", wanted, None),
        form or "float",
        bool(cache) and given.cache,
        _deadline(timeout),
        members,
    )


def _whole(name: str, value: Any, most: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        bound = "1 or more" if most is None else f"1 to {most}"
        raise InvalidInput(f"{name} is {value!r}; it is a whole number of {bound}.", field=name)
    return value


def _checked_members(given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidInput(f"extra_body is a {type(given).__name__}; it is a mapping.", field="extra_body")
    reserved = next((name for name in _RESERVED if name in given), None)
    if reserved is not None:
        raise InvalidInput(f"extra_body holds {reserved!r}, which embed() writes itself.", field="extra_body")
    return dict(given)


def _deadline(timeout: float | None) -> float | None:
    if timeout is None or timeout == math.inf:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidInput(f"timeout is {timeout!r}; it is a number of seconds over 0.", field="timeout")
    return time.monotonic() + timeout
