"""Asking once: `predict` and its awaited and streamed twins, without keeping a program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from .. import defaults
from ..errors import UnknownName
from ..signatures.signature import Signature, signature
from ..types.chunk import Chunk
from ..types.prediction import Prediction
from .factories import predictor
from .program import CALL_OPTIONS, Program

_RARE = ("supervisor", "rollout_id", "allow_markers", "use_native_function_calling", "idempotent")


def predict(
    sig: Any,
    inputs: Mapping[str, Any],
    *,
    lm: Any = None,
    adapter: str | None = None,
    demos: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    implementation: str = "auto",
    timeout: float | None = None,
    **options: Any,
) -> Prediction:
    """Ask a language model for a signature's outputs; see `Program.__call__` for what it raises."""
    return _one_shot(sig, lm, adapter, demos, config, implementation, timeout, options)(**inputs)


async def apredict(
    sig: Any,
    inputs: Mapping[str, Any],
    *,
    lm: Any = None,
    adapter: str | None = None,
    demos: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    implementation: str = "auto",
    timeout: float | None = None,
    **options: Any,
) -> Prediction:
    """`predict`, awaited."""
    program = _one_shot(sig, lm, adapter, demos, config, implementation, timeout, options)
    return await program.acall(**inputs)


def predict_stream(sig: Any, inputs: Mapping[str, Any], **options: Any) -> Iterator[Chunk | Prediction]:
    """`predict`, giving the fields' text as it arrives, then the prediction."""
    return predictor("predict", sig, **options).stream(**inputs)


def apredict_stream(sig: Any, inputs: Mapping[str, Any], **options: Any) -> AsyncIterator[Chunk | Prediction]:
    """`predict_stream`, for `async for`."""
    return predictor("predict", sig, **options).astream(**inputs)


def _one_shot(
    sig: Any,
    lm: Any,
    adapter: str | None,
    demos: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any] | None,
    implementation: str,
    timeout: float | None,
    options: Mapping[str, Any],
) -> Program:
    known = sig if isinstance(sig, Signature) else signature(sig)
    unknown = options.keys() - set(_RARE)
    if unknown:
        raise UnknownName("option", min(unknown), [*CALL_OPTIONS, "allow_markers"], where="predict()")
    return Program(
        "dspy.Predict",
        known,
        demos=tuple(demos),
        lm=None if lm is None else defaults.as_lm(lm),
        adapter=adapter,
        config=config or {},
        implementation=implementation,
        timeout=timeout,
        **options,
    )
