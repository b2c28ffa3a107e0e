"""Read a DSPy program's saved state for the native side: instructions, descriptions and demos.

DSPy's file holds no field names and pairs what it has with the signature by position; a state that does not fit is
refused here instead of being mis-assigned (research: DSPy 3.4.1, `signature.py` load_state).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidInput
from ...signatures.signature import Signature, signature_of_fields

_PREDICTOR = {"dspy.Predict": None, "dspy.ChainOfThought": "predict"}  # where the module keeps its one predictor


@dataclass(frozen=True, slots=True)
class NativeState:
    """The state that the native side serves; `problem` is the reason why it cannot."""

    signature: Signature
    demos: tuple[Mapping[str, Any], ...]
    problem: str | None = None


def native_state(
    module: str, sig: Signature, state: Mapping[str, Any] | None, demos: Sequence[Mapping[str, Any]]
) -> NativeState:
    """Return the signature and demos that the state makes of the module.

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
    described = zip(sig.fields.items(), saved["fields"], strict=True)
    fields = {name: known.replace(desc=given["description"]) for (name, known), given in described}
    updated = signature_of_fields(fields, saved["instructions"])
    return NativeState(updated, (*demos, *part["demos"]) if not demos else tuple(demos))


def predictor_state(module: str, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of the state that belongs to the module's one predictor.

    Raises:
        InvalidInput: there is none.
    """
    key = _PREDICTOR[module]
    part = state if key is None else state.get(key)
    if not isinstance(part, Mapping) or "signature" not in part or "demos" not in part:
        raise InvalidInput(f"The state is not of {module}: it has the parts {', '.join(sorted(state))}.")
    return part


def demos_of(state: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the demos of each part of the state."""
    for part in (state or {}, *(state or {}).values()):
        if isinstance(part, Mapping):
            yield from (demo for demo in part.get("demos") or () if isinstance(demo, Mapping))


def saved_prefix(name: str) -> str:
    """Return the prefix of a field in DSPy's saved state: its name in words (`infer_prefix`), and a colon."""
    for joint in _JOINTS:
        name = joint.sub(r"\1_\2", name)
    return " ".join(word if word.isupper() else word.capitalize() for word in name.split("_")) + ":"


# Where a name is taken apart: before a capitalized word, after small letters, around digits.
_JOINTS = tuple(
    re.compile(pattern) for pattern in (r"(.)([A-Z][a-z]+)", r"([a-z0-9])([A-Z])", r"([a-zA-Z])(\d)", r"(\d)([a-zA-Z])")
)
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


def _require_fit(sig: Signature, saved: Mapping[str, Any]) -> None:
    """Check that the state is of this signature, by the prefixes and descriptions that DSPy makes of field names.

    Raises:
        InvalidInput: it is of another program.
    """
    fields = saved.get("fields") or []
    if len(fields) != len(sig.fields):
        raise InvalidInput(
            f"The state has {len(fields)} fields, the signature {len(sig.fields)} ({', '.join(sig.fields)}): it was "
            f"saved from another program."
        )
    last = len(fields) - 1
    for at, ((name, own), given) in enumerate(zip(sig.fields.items(), fields, strict=True)):
        placeholder = None if given["description"] == own.desc else _PLACEHOLDER.fullmatch(given["description"])
        # COPRO rewrites the last field's prefix.
        is_other = at < last and given.get("prefix") not in (None, saved_prefix(name))
        if is_other or (placeholder is not None and placeholder[1] != name):
            raise InvalidInput(
                f"The state has the field {given.get('prefix')!r} where the signature has {name!r}: it was saved from "
                f"another program."
            )
