"""A DSPy program's saved state, read for the native side: instructions, descriptions and demos.

DSPy's file holds no field names and pairs what it has with the signature by position; a state that does not fit is
refused here instead of being mis-assigned (research: DSPy 3.4.1, `signature.py` load_state).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInput
from .inprocess.signatures import Signature

_PREDICTOR = {"dspy.Predict": None, "dspy.ChainOfThought": "predict"}  # where the module keeps its one predictor


@dataclass(frozen=True, slots=True)
class NativeState:
    """What the native side serves; `problem` says why it cannot."""

    signature: Signature
    demos: tuple[Mapping[str, Any], ...]
    problem: str | None = None


def native_state(
    module: str, sig: Signature, state: Mapping[str, Any] | None, demos: Sequence[Mapping[str, Any]]
) -> NativeState:
    """Give the signature and demos that the state makes of the module.

    Raises:
        InvalidInput: the state is of another program.
    """
    if state is None or module not in _PREDICTOR:
        return NativeState(sig, tuple(demos))
    part = predictor_state(module, state)
    saved = part["signature"]
    _require_fit(sig, saved)
    if part.get("fields"):
        return NativeState(sig, (), "it has decision criteria")
    updated = sig.with_instructions(saved["instructions"])
    for name, given in zip(sig.fields, saved["fields"], strict=True):
        if given["description"] != "${" + name + "}":
            updated = updated.with_updated_fields(name, desc=given["description"])
    return NativeState(updated, (*demos, *part["demos"]) if not demos else tuple(demos))


def predictor_state(module: str, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the part of the state that belongs to the module's one predictor."""
    key = _PREDICTOR[module]
    part = state if key is None else state.get(key)
    if not isinstance(part, Mapping) or "signature" not in part or "demos" not in part:
        raise InvalidInput(f"The state is not of {module}: it has the parts {', '.join(sorted(state))}.")
    return part


def _require_fit(sig: Signature, saved: Mapping[str, Any]) -> None:
    fields = saved.get("fields") or []
    if len(fields) != len(sig.fields):
        raise InvalidInput(
            f"The state has {len(fields)} fields, the signature {len(sig.fields)} ({', '.join(sig.fields)}): it was "
            f"saved from another program."
        )
