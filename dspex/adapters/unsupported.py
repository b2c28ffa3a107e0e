"""The cases that the native adapters do not render, each with the router's reason for using a worker."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isclass
from typing import Any, Final, get_origin

from ..signatures.annotations import classes_in, is_dspy_type
from ..signatures.field import Field
from ..signatures.signature import Signature
from ..signatures.wire_form import IMPORTED
from ..types.dspy_objects import dspy_type_name

_NATIVE_INPUTS: Final = frozenset(
    {
        *("dspy.Image", "dspy.Audio", "dspy.File", "dspy.Code", "dspy.Reasoning", "dspy.History"),
        *("dspy.Tool", "dspy.ToolCalls", "dspy.ToolCallResults"),
    }
)
_CALLS: Final = "dspy.ToolCalls"


def unsupported_reason(sig: Signature) -> str | None:
    """Return why this signature needs a worker; None when it does not. Checks that every class has a schema, too."""
    for field in sig.fields.values():
        own = next((kind for kind in classes_in(field.annotation) if hasattr(kind, IMPORTED)), None)
        if own is not None:
            return f"the type of {field.name!r} is {getattr(own, IMPORTED)}, which only workers import"
        kinds = [_base_name(kind) for kind in _dspy_types_in(field.annotation, set())]
        if not kinds:
            continue
        if field.kind == "input" and set(kinds) <= _NATIVE_INPUTS:
            continue
        # A schema of these in the prompt would quote DSPy's own documentation; Code as such and tool calls have none.
        if field.kind == "output" and (_is_code(field.annotation) or set(kinds) == {_CALLS}):
            continue
        return f"the {field.kind} {field.name!r} is a {kinds[0]}, which workers render"
    _require_schemas(sig)
    return None


def unsupported_schema(sig: Signature) -> str | None:
    """Return why the json adapter's response format needs a worker: a schema would quote DSPy's documentation.

    That matters for a model that takes schemas, in the chat adapter too: it may have to ask again in json.
    """
    for field in sig.output_fields.values():
        for kind in _dspy_types_in(field.annotation, set()):
            if _base_name(kind) == _CALLS:
                continue
            return f"the schema of the output {field.name!r} ({_base_name(kind)}) is made by workers"
    return None


def holds_dspy_types(field: Field) -> bool:
    """Return whether values of this field may hold DSPy's own types, at any depth."""
    return next(_dspy_types_in(field.annotation, set()), None) is not None


def _base_name(kind: Any) -> str:
    return str(dspy_type_name(kind)).partition("[")[0]


def _is_code(annotation: Any) -> bool:
    return is_dspy_type(annotation) and _base_name(annotation) == "dspy.Code"


def _dspy_types_in(annotation: Any, seen: set[type]) -> Iterator[Any]:
    for kind in classes_in(annotation):
        if dspy_type_name(kind) is not None:
            yield kind
        elif hasattr(kind, "model_fields") and kind not in seen:
            seen.add(kind)
            for field in kind.model_fields.values():
                yield from _dspy_types_in(field.annotation, seen)


def _require_schemas(sig: Signature) -> None:
    """Check that every class has a schema: DSPy refuses others when the signature is made; here, when compiled."""
    for field in sig.input_fields.values():
        if any(True for _ in classes_in(field.annotation)) or _is_odd(field.annotation):
            from pydantic import TypeAdapter

            TypeAdapter(field.annotation)


def _is_odd(annotation: Any) -> bool:
    """Whether this is a form of typing alone, such as Never, that no value has."""
    return get_origin(annotation) is None and not isclass(annotation) and annotation is not Any
