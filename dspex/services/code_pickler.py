"""Pickle code and values of this process for its own workers: what stands for DSPy's types becomes DSPy's own there.

cloudpickle does the work. Some things are not as they are here: a stand-in (`dspex.Image`) becomes DSPy's class, also
in a model that holds one, whose validators the worker makes anew; a `Prediction` becomes DSPy's own, without the
account of its call; a tool becomes one that is called here; a `dspy.Embedder` leaves its key here, with an LM that
takes its place; and classes that workers cannot import go under the digest by which the signature's types go too, so
that a value is of the very class that its field has.
"""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import importlib
import typing
from collections.abc import Callable
from inspect import isclass
from typing import Any, Final

from dspex_worker.types import host_references

from ..retrieval.given_embedder import keyless_state
from ..types.dspy_objects import dspy_type_name, is_instance
from ..types.example import Example
from ..types.prediction import Prediction

_OURS: Final = "dspex.types."
_INNER: Final = {
    "ToolCall": "ToolCalls.ToolCall",
    "ToolCallResult": "ToolCallResults.ToolCallResult",
    "Citation": "experimental.Citations.Citation",
}
_COMPILED: Final = (
    "__pydantic_core_schema__",
    "__pydantic_validator__",
    "__pydantic_serializer__",
    "__pydantic_complete__",
)
NameOf = Callable[[Any], str | None]


def pickler_class(cloudpickle: Any, name_of: NameOf) -> Any:
    """Return a pickler; `name_of` gives the name of a class that is sent apart, None for one that is not."""

    class CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
        """cloudpickle's, with these exceptions."""

        def reducer_override(self, item: Any) -> Any:
            if isclass(item):
                return _class_form(item, name_of, super().reducer_override)
            if type(item) is Prediction:
                return host_references.dspy_record, ("Prediction", dict(item.items()))
            if type(item) is Example:
                return host_references.dspy_record, ("Example", item.toDict(), _input_keys(item))
            if type(item).__name__ == "Tool" and type(item).__module__ == f"{_OURS}tool":
                return host_references.host_tool, (item.to_wire(),)
            if type(item).__name__ == "_LazyModule" and type(item).__module__ == "dspy.utils.lazy_import":
                return importlib.import_module, (item.__name__,)  # which DSPy's own functions hold for a module
            if is_instance(item, "Embedder") and (state := keyless_state(item)) is not None:
                return copyreg.__newobj__, (type(item),), state  # type: ignore[attr-defined]
            if item is dataclasses.MISSING:
                return "MISSING"  # the one of its module: a copy would be a default like any other
            return super().reducer_override(item)

    return CodePickler


def _input_keys(example: Example) -> list[str] | None:
    try:
        return [*example.inputs().keys()]
    except ValueError:  # nothing says which they are
        return None


def stand_in_name(kind: Any) -> str | None:
    """Return what DSPy calls the class that this one stands for; None for any other."""
    if not kind.__module__.startswith(_OURS):
        return None
    name = _INNER.get(kind.__name__) or dspy_type_name(kind)
    return name.removeprefix("dspy.") if name else None


def _class_form(kind: Any, name_of: NameOf, usual: Callable[[Any], Any]) -> Any:
    stands_for = stand_in_name(kind)
    if stands_for is not None:
        return host_references.dspy_type, (stands_for,)
    name = name_of(kind)
    if name is not None:
        return host_references.sent_code, (name, kind.__qualname__)
    form = usual(kind)
    if form is NotImplemented or len(form) < 3:
        return form
    make, arguments, (members, slots), *others = form
    members = {**_with_types(kind, members), "__qualname__": kind.__qualname__}  # by which values come back
    if "__pydantic_parent_namespace__" in members:  # the variables of the function that made the class
        members["__pydantic_parent_namespace__"] = None
    if not (hasattr(kind, "model_fields") and _holds_stand_ins(kind)):
        return (make, arguments, (members, slots), *others)
    # Without what pydantic made for the stand-ins: the worker has it made again for DSPy's types.
    plain = {name: member for name, member in members.items() if name not in _COMPILED}
    return make, arguments, (plain, slots), None, None, host_references.set_members


def _holds_stand_ins(model: Any) -> bool:
    from dspex_worker.types.annotation_facts import classes_in

    seen: set[Any] = set()
    waiting = [model]
    while waiting:
        kind = waiting.pop()
        for field in getattr(kind, "model_fields", {}).values():
            for inner in set(classes_in(field.annotation)) - seen:
                if stand_in_name(inner) is not None:
                    return True
                seen.add(inner)
                waiting.append(inner)
    return False


def _with_types(kind: Any, members: dict[str, Any]) -> dict[str, Any]:
    """Return the members with types for the texts of types: the module that gives these their meaning stays here."""
    written = members.get("__annotations__")
    if not isinstance(written, dict) or not any(map(_is_text, written.values())):
        return members
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # any code may run in an annotation; the worker then says what it misses
        return members
    typed = members | {"__annotations__": {name: hints.get(name, text) for name, text in written.items()}}
    if dataclasses.is_dataclass(kind):
        typed["__dataclass_fields__"] = {
            name: _typed_field(field, hints) for name, field in kind.__dataclass_fields__.items()
        }
    return typed


def _is_text(annotation: Any) -> bool:
    return isinstance(annotation, str | typing.ForwardRef)


def _typed_field(field: Any, hints: dict[str, Any]) -> Any:
    made = copy.copy(field)
    made.type = hints.get(field.name, field.type)
    return made
