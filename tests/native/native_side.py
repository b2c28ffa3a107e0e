"""The native side of a parity case, and the comparison with DSPy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import native_shapes
from native_oracle import annotations, results, values

from dspex.errors import EncodeError, InvalidInput, SignatureError
from dspex.inprocess import types as native_types
from dspex.inprocess.adapters import compile_signature
from dspex.inprocess.adapters.schema import response_format
from dspex.inprocess.adapters.support import unsupported_schema
from dspex.inprocess.crossing import checked_inputs, wire_inputs
from dspex.inprocess.fields import InputField, OutputField
from dspex.inprocess.signatures import Signature, signature

Case = Mapping[str, Any]


def native_results(case: Case) -> dict[str, Any]:
    """What DSPex makes of the case."""
    return results(case, _make, _Side())


def wire_case(case: Case) -> tuple[dict[str, Any], Any] | None:
    """The case as a worker gets it, and the native messages; None where the inputs or types do not cross."""
    sig = _make(case)
    try:
        inputs = values(case["inputs"], native_types)
        inputs.pop("augmented", None)
        wire, plain = sig.to_wire(), wire_inputs(sig, inputs, allow_markers=True)
        checked = checked_inputs(sig, inputs, allow_markers=True)
    except (InvalidInput, EncodeError, SignatureError):
        return None
    messages = compile_signature(sig, case["adapter"]).messages(checked, allow_markers=True)
    return {"wire": wire, "inputs": plain, "adapter": case["adapter"]}, messages


def differences(case: Case, native: Mapping[str, Any], dspy: Mapping[str, Any]) -> list[str]:
    """What differs, in words; empty when nothing does."""
    if "signature" in native or "signature" in dspy:
        return [] if "signature" in native and "signature" in dspy else [f"signature: {native} / {dspy}"]
    found = [] if native["instructions"] == dspy["instructions"] else ["instructions"]
    for part in ("text", "messages", "format"):
        if part == "format" and native[part] is None:
            continue
        if not _alike(native[part], dspy[part]):
            found.append(f"{part}:\n  native {native[part]}\n  dspy   {dspy[part]}")
    for text, ours, theirs in zip(case["answers"], native["parsed"], dspy["parsed"], strict=True):
        if not _alike(ours, theirs):
            found.append(f"parse {text!r}:\n  native {ours}\n  dspy   {theirs}")
    return found


def _alike(ours: Any, theirs: Any) -> bool:
    """Equal, or errors on both sides: where DSPy lets a TypeError of pydantic's out, DSPex has its own error."""
    if _is_error(ours) or _is_error(theirs):
        return _is_error(ours) and _is_error(theirs)
    return bool(ours == theirs)


def _is_error(outcome: Any) -> bool:
    return isinstance(outcome, tuple) and outcome[0] == "error"


def _make(case: Case) -> Signature:
    if case["text"] is not None:
        return signature(case["text"], case["instructions"], custom_types=native_shapes.NAMES)
    types = annotations(case, native_types)  # the texts are evaluated here: they stand for a class's annotations
    spec = {}
    for field in case["fields"]:
        make = InputField if field["kind"] == "input" else OutputField
        spec[field["name"]] = (types.get(field["name"], str), make(**field["options"]))
    return signature(spec, case["instructions"])


class _Side:
    def text(self, sig: Signature) -> str:
        return f"{', '.join(sig.input_fields)} -> {', '.join(sig.output_fields)}"

    def messages(self, sig: Signature, case: Case) -> Any:
        compiled = compile_signature(sig, case["adapter"])
        demos = values(case["demos"], native_types)
        return compiled.messages(values(case["inputs"], native_types), demos, allow_markers=True)

    def parse(self, sig: Signature, case: Case, text: str) -> Any:
        return compile_signature(sig, case["adapter"]).parse(text)

    def response_format(self, sig: Signature) -> Any:
        if unsupported_schema(sig):
            return None  # workers make it then
        return response_format(sig.output_fields)
