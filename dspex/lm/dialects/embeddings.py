"""OpenAI's embeddings: the vectors of texts. The same endpoint, key and errors as chat, no text and no stream.

The host asks (`dspex.embed`), and so do workers (`dspy.Embedder`). A reply is checked against its request before anyone
sees or keeps it: as many vectors as texts, of one length, of finite numbers.
"""

from __future__ import annotations

import array
import base64
import binascii
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import LMError, LMProviderError, LMUnsupportedFeatureError
from . import openai
from .answer import Answer, no_answer
from .asked_body import names_another
from .dialect import Message
from .error_envelopes import fault_in
from .json_body import BODY_CHECKED, BODY_VALUES, decode, encode
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

Vector: TypeAlias = "array.array[float]"  # of 32-bit floats
PATH = "/embeddings"
FEWER_AT_ONCE = "ask for fewer texts at once (batch_size=), or for encoding_format='base64'"
_CHAT = "/chat/completions"
_FLOAT_BYTES = 4


@dataclass(slots=True)
class EmbeddedTexts(Answer):
    """A reply's vectors, in the order of the texts."""

    vectors: Sequence[Vector] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingsDialect:
    """The dialect of one request: for `count` texts, None where that cannot be told, of `dimensions` numbers each."""

    count: int | None = None
    dimensions: int | None = None

    @classmethod
    def of_request(cls, asked: Mapping[str, Any]) -> EmbeddingsDialect:
        """Return the dialect of a worker's request."""
        return cls(_count_of(asked.get("input")))

    def endpoint(self, lm: LM) -> str:
        """Return the URL of embeddings."""
        return endpoint(lm)

    def owns(self, lm: LM, url: str) -> bool:
        """Return whether the URL is the LM's embeddings."""
        return owns(lm, url)

    def streams(self, url: str, asked: Mapping[str, Any]) -> bool:
        """Return whether a request asks for a stream: never."""
        return False

    def names_another(self, lm: LM, asked: Mapping[str, Any]) -> bool:
        """Return whether a request's body names another model than the record."""
        return names_another(lm, asked)

    def reporting(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's request as it is: what was used is always reported."""
        return asked

    def body(self, lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
        """Refuse: messages have no embedding; see `body` of this module for texts."""
        raise LMUnsupportedFeatureError("An endpoint of embeddings takes texts, no messages.", model=lm.model)

    def answer(self, lm: LM, body: bytes) -> EmbeddedTexts:
        """Return what a 2xx response holds.

        Raises:
            LMError: the body holds an error, no vectors, or not those that were asked for.
        """
        _require_readable(lm, body)
        data = decode(lm, body)
        if fault := fault_in(data):
            raise fault.error(lm)
        given = data.get("data")
        if not isinstance(given, list) or not given:
            raise no_answer(lm, data)
        vectors = [_vector(lm, each, at) for at, each in enumerate(_in_order(lm, given, self.count))]
        self._require_even(lm, vectors)
        return EmbeddedTexts(None, str(data.get("model") or lm.name), usage=usage_in(data), vectors=vectors)

    def repaired(self, lm: LM, body: bytes) -> bytes:
        """Return the body: there is nothing to repair."""
        return body

    def usage_in(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the counters that a response holds."""
        return usage_in(data)

    def reader(self, lm: LM) -> StreamReader:
        """Return a reader for a stream, which an endpoint may send unasked."""
        return openai.reader(lm)

    def failure(self, lm: LM, status: int, body: bytes) -> LMError:
        """Return the error that a response of 400 and more stands for."""
        return openai.failure(lm, status, body)

    def _require_even(self, lm: LM, vectors: Sequence[Vector]) -> None:
        width = len(vectors[0])
        odd = next((at for at, vector in enumerate(vectors) if len(vector) != width), None)
        if odd is not None:
            raise _odd(lm, f"vectors of {width} and of {len(vectors[odd])} numbers (number {odd + 1})")
        if self.dimensions is not None and width != self.dimensions:
            raise _odd(lm, f"vectors of {width} numbers where dimensions={self.dimensions} were asked for")


def endpoint(lm: LM) -> str:
    """Return the URL of embeddings: beside that of chat, with its query if it has one."""
    url, mark, query = openai.endpoint(lm).partition("?")
    base = url.removesuffix(_CHAT) if url.endswith(_CHAT) else lm.api_base
    return f"{base}{PATH}{mark}{query}"


def owns(lm: LM, url: str) -> bool:
    """Return whether the URL is the LM's embeddings, as a worker writes it: without deployment and query."""
    return url == f"{lm.worker_base}{PATH}"


def body(lm: LM, texts: Sequence[str], encoding_format: str, options: Mapping[str, Any]) -> bytes:
    """Return the body of a request for the vectors of these texts.

    Raises:
        InvalidInput: a text that is no Unicode.
    """
    return encode({"model": lm.name, "input": list(texts), "encoding_format": encoding_format, **options})


def usage_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counters that a response holds; embeddings have no completion, which some servers leave out."""
    found = openai.usage(data.get("usage"))
    return {"completion_tokens": 0, **found} if found else found


def _count_of(given: Any) -> int | None:
    """Return how many vectors an `input` asks for: it is a text, texts, or tokens in place of either."""
    if not isinstance(given, list):
        return 1 if isinstance(given, str) else None
    return 1 if given and isinstance(given[0], int) else len(given)


def _require_readable(lm: LM, body: bytes) -> None:
    if len(body) > BODY_CHECKED and (numbers := body.count(b",")) > BODY_VALUES:
        raise _odd(
            lm,
            f"some {numbers:,} numbers, over {BODY_VALUES:,}, which are not read: {FEWER_AT_ONCE}",
        )


def _in_order(lm: LM, given: list[Any], count: int | None) -> list[Any]:
    """Return the items of a reply in the order of the texts, as their `index` says; where none says, as they came."""
    if count is not None and len(given) != count:
        raise _odd(lm, f"{len(given)} vectors for {count} texts")
    if not all(isinstance(each, dict) for each in given):
        raise _odd(lm, "a vector that is no object")
    places = [each.get("index") for each in given]
    if all(place is None for place in places):
        return given
    if sorted(place for place in places if type(place) is int) != list(range(len(given))):
        raise _odd(lm, f"vectors whose places are not 0 to {len(given) - 1}, each once")
    return sorted(given, key=lambda each: int(each["index"]))


def _vector(lm: LM, item: Mapping[str, Any], at: int) -> Vector:
    given = item.get("embedding")
    try:
        made = _of_base64(given) if isinstance(given, str) else array.array("f", given or ())
    except (TypeError, ValueError, OverflowError):
        raise _odd(lm, f"as vector {at + 1} what is no list of numbers") from None
    if not made:
        raise _odd(lm, f"nothing as vector {at + 1}")
    if not math.isfinite(sum(made)):
        raise _odd(lm, f"as vector {at + 1} numbers that are not finite")
    return made


def _of_base64(given: str) -> Vector:
    try:
        raw = base64.b64decode(given, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if len(raw) % _FLOAT_BYTES:
        raise ValueError("no 32-bit floats")
    made = array.array("f")
    made.frombytes(raw)
    if sys.byteorder == "big":
        made.byteswap()
    return made


def _odd(lm: LM, what: str) -> LMProviderError:
    return LMProviderError(
        f"The endpoint of embeddings gave {what}.", model=lm.model, provider=lm.provider.id, status=200
    )
