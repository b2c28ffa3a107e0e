"""OpenAI's embeddings, which workers ask for (`dspy.Embedder`): the same endpoint and errors, no text and no stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import LMUnsupportedFeatureError
from .answer import Answer, no_answer
from .asked_body import names_another as names_another
from .dialect import Message
from .error_envelopes import fault_in
from .json_body import decode
from .openai import failure as failure
from .openai import reader as reader
from .openai import usage

if TYPE_CHECKING:
    from ..record import LM


def endpoint(lm: LM) -> str:
    """Return the URL of embeddings."""
    return f"{lm.api_base}/embeddings"


def owns(lm: LM, url: str) -> bool:
    """Return whether the URL is the LM's embeddings."""
    return url == endpoint(lm)


def streams(url: str, asked: Mapping[str, Any]) -> bool:
    """Return whether a request asks for a stream: never."""
    return False


def reporting(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's request as it is: what was used is always reported."""
    return asked


def body(lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
    """Refuse: the host itself asks for no embeddings."""
    raise LMUnsupportedFeatureError("Embeddings are asked for by workers only.", model=lm.model)


def answer(lm: LM, body: bytes) -> Answer:
    """Return what a 2xx response used; its vectors are the worker's to read.

    Raises:
        LMError: the body holds an error, or no vectors.
    """
    data = decode(lm, body)
    if fault := fault_in(data):
        raise fault.error(lm)
    if not isinstance(data.get("data"), list) or not data["data"]:
        raise no_answer(lm, data)
    return Answer(text=None, model=str(data.get("model") or lm.name), usage=usage_in(data))


def repaired(lm: LM, body: bytes) -> bytes:
    """Return the body: there is nothing to repair."""
    return body


def usage_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counters that a response holds; embeddings have no completion, which some servers leave out."""
    found = usage(data.get("usage"))
    return {"completion_tokens": 0, **found} if found else found
