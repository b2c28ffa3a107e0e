"""Let `dspy.Embedder("openai/text-embedding-3-small")` in user code ask through the parent, as its LMs do.

DSPy has LiteLLM connect from here, which takes seconds to import and finds no key. A function as the model, and a
model whose configured LM is `direct`, are left to DSPy.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import dspy
from dspy.utils import exceptions as dspy_errors

from ..dspy_parts import CLIENT_KEYS, NoAnswer, module_of_dspy
from .lm_lookup import LMS, CallLMs, headers_of
from .lm_transport import LMCallOptions, ParentTransport
from .worker_lm import WorkerLM, counted


def install() -> None:
    """Carry the requests of user code's embedders through the parent, in this process from now on."""
    embedding = module_of_dspy("clients.embedding")
    embedding._compute_embeddings = _computing(embedding._compute_embeddings)
    embedding._acompute_embeddings = _acomputing(embedding._acompute_embeddings)


def _computing(compute: Any) -> Any:
    @wraps(compute)
    def compute_here(model: Any, batch_inputs: list[str], caching: bool = False, **options: Any) -> Any:
        found = _asked(model, options)
        if found is None:
            return compute(model, batch_inputs, caching=caching, **options)
        if found.record.get("direct"):
            return compute(found.record["model"], batch_inputs, caching=False, **_connection(found.record), **options)
        return found.vectors(batch_inputs, options, is_kept=caching)

    return compute_here


def _acomputing(acompute: Any) -> Any:
    @wraps(acompute)
    async def acompute_here(model: Any, batch_inputs: list[str], caching: bool = False, **options: Any) -> Any:
        found = await asyncio.to_thread(_asked, model, options)
        if found is None:
            return await acompute(model, batch_inputs, caching=caching, **options)
        if found.record.get("direct"):
            connection = _connection(found.record)
            return await acompute(found.record["model"], batch_inputs, caching=False, **connection, **options)
        return await asyncio.to_thread(found.vectors, batch_inputs, options, is_kept=caching)

    return acompute_here


@dataclass(frozen=True, slots=True)
class UserEmbedder:
    """An embedding model that user code asks, and the parent's record of it."""

    model: str
    record: Mapping[str, Any]
    model_type: str = "chat"
    num_retries: int = 3

    def vectors(self, batch: list[str], options: Mapping[str, Any], *, is_kept: bool) -> list[list[float]]:
        """Return the vector of each text.

        Raises:
            LMError: a subclass of DSPy's, by what went wrong.
        """
        own = {name: value for name, value in options.items() if value is not None and name not in CLIENT_KEYS}
        body = {"model": str(self.record["model"]).partition("/")[2], "input": batch, "encoding_format": "float", **own}
        request = _EmbeddingsRequest(f"{self.record['api_base']}/embeddings", self._encoded(body))
        transport = ParentTransport(
            str(self.record["ref"]),
            timeout=self.record.get("timeout"),
            cache=is_kept,
            is_bare=bool(self.record.get("is_bare")),
        )
        try:
            with counted(LMCallOptions(headers=headers_of(self, options))):
                _, chunks = transport.opened(request)
                with contextlib.closing(chunks):
                    raw = b"".join(chunks)
        except NoAnswer as error:
            raise dspy_errors.LMTransportError(message=str(error), model=self.model) from error
        found = json.loads(raw)["data"]  # the parent has read it
        ordered = sorted(found, key=lambda one: int(one.get("index") or 0))
        if len(ordered) != len(batch):
            raise dspy_errors.LMServerError(
                message=f"The endpoint gave {len(ordered)} vectors for {len(batch)} texts.", model=self.model
            )
        return [_numbers(one["embedding"]) for one in ordered]

    def _encoded(self, body: Mapping[str, Any]) -> bytes:
        try:  # the host's own bytes for the same texts: both find the answer in the cache
            return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            raise dspy_errors.LMInvalidRequestError(
                message="A text holds half of a surrogate pair.", model=self.model
            ) from None


@dataclass(frozen=True, slots=True)
class _EmbeddingsRequest:
    """What `ParentTransport` reads of a request, as lm15 has it."""

    url: str
    body: bytes
    method: str = "POST"
    read_timeout: float | None = None
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)


def _numbers(vector: Any) -> list[float]:
    """Return a vector's numbers, which an endpoint may send as base64 of 32-bit floats."""
    if not isinstance(vector, str):
        numbers: list[float] = vector
        return numbers
    raw = base64.b64decode(vector)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def _asked(model: Any, options: Mapping[str, Any]) -> UserEmbedder | None:
    """Return what is asked; None for what is no model of a provider, or where no call runs.

    Raises:
        LMError: the parent refused, or cannot carry it.
    """
    lms: CallLMs | None = dspy.settings.get(LMS)
    if isinstance(model, WorkerLM):  # of an embedder that the host sent without its key
        model, record = model.model, model.record
    elif lms is None or not isinstance(model, str):
        return None
    else:
        record = lms.record(UserEmbedder(model, {}), options)
    if not record.get("direct") and record.get("dialect") != "openai":
        raise dspy_errors.LMUnsupportedFeatureError(
            message=f"dspy.Embedder({model!r}) speaks another format than OpenAI's, which requests through the parent "
            f"cannot have. Configure dspex.LM({model!r}, direct=True) in the host, or give the embedder a function.",
            model=model,
        )
    return UserEmbedder(model, record)


def _connection(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("api_key", "api_base") if record.get(name)}
