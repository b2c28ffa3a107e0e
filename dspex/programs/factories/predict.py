"""Predict once, without keeping a program: `predict`, and its awaited and streamed twins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from ...errors import InvalidInput, UnknownName
from ...lm.given_lms import takes_lms
from ...types.chunk import Chunk
from ...types.prediction import Prediction
from ..calling.program import Program, call_options
from ..modules.named_signatures import signature_for
from ..options import program_options
from ..options.program_kinds import MadeOptions

if TYPE_CHECKING:
    from ..calling.program import S
    from .program_factories import Described


@takes_lms
def predict(sig: Described[S], inputs: Mapping[str, Any], **options: Unpack[MadeOptions]) -> Prediction[S]:
    """Ask a language model for a signature's outputs; see `Program.__call__` for what it raises.

    Options: see `Program.using`.
    """
    return _one_shot(sig, options)(**_named(inputs))


@takes_lms
async def apredict(sig: Described[S], inputs: Mapping[str, Any], **options: Unpack[MadeOptions]) -> Prediction[S]:
    """`predict`, awaited."""
    return await _one_shot(sig, options).acall(**_named(inputs))


@takes_lms
def predict_stream(
    sig: Described[S], inputs: Mapping[str, Any], **options: Unpack[MadeOptions]
) -> Iterator[Chunk | Prediction[S]]:
    """`predict`, yielding the fields' text as it arrives, then the prediction."""
    return _one_shot(sig, options).stream(**_named(inputs))


@takes_lms
def apredict_stream(
    sig: Described[S], inputs: Mapping[str, Any], **options: Unpack[MadeOptions]
) -> AsyncIterator[Chunk | Prediction[S]]:
    """`predict_stream`, for `async for`."""
    return _one_shot(sig, options).astream(**_named(inputs))


def _one_shot(sig: Described[S], options: MadeOptions) -> Program[S]:
    known = signature_for(sig, options.get("supervisor"))
    how: dict[str, Any] = {**options}
    allow_markers = how.pop("allow_markers", False)
    for name in how:
        if name not in program_options.NAMES:
            raise UnknownName("option", name, program_options.NAMES | {"allow_markers"}, where="predict()")
    return Program("dspy.Predict", known, **call_options(how), allow_markers=allow_markers)


def _named(inputs: Any) -> Mapping[str, Any]:
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise InvalidInput(f"The inputs are a mapping of field names to values, not a {type(inputs).__name__}.")
    return inputs
