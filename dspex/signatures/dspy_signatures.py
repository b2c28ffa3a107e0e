"""Read a class derived from `dspy.Signature` into fields, in a host that has imported DSPy."""

from __future__ import annotations

from typing import Any

from dspex_worker.types.type_names import CONSTRAINT_WORDS

from ..errors import SignatureError
from ..types.dspy_objects import annotation_here
from .annotations import annotation_text
from .field import MISSING, Field
from .grammar import check_name

_UNTYPED = "IS_TYPE_UNDEFINED"  # DSPy's mark on a field whose type was not written


def fields_of_class(cls: Any) -> dict[str, Field]:
    """Return the fields of the class, inputs first.

    Raises:
        SignatureError: a name or a type that no signature of DSPex can have.
    """
    return {name: _field(cls, name, info) for name, info in cls.fields.items()}


def _field(cls: Any, name: str, info: Any) -> Field:
    extra = info.json_schema_extra
    annotation = annotation_here(info.annotation)
    try:
        annotation_text(annotation)
    except SignatureError as error:
        raise SignatureError(f"The field {name!r} of {cls.__name__}: {error}") from error
    desc = extra.get("desc")
    return Field(
        check_name(name),
        extra["__dspy_field_type"],
        annotation,
        bool(extra.get(_UNTYPED)),
        None if desc == f"${{{name}}}" else desc,
        _constraints(info, str(extra.get("constraints", ""))) or None,
        MISSING if info.is_required() or info.default_factory is not None else info.default,
        info.default_factory,
    )


def _constraints(info: Any, text: str) -> dict[str, Any]:
    """Return the bounds in the order in which DSPy's words give them."""
    values = {key: getattr(item, key) for item in info.metadata for key in CONSTRAINT_WORDS if hasattr(item, key)}
    return {key: values[key] for key in sorted(values, key=lambda key: text.find(CONSTRAINT_WORDS[key]))}
