"""Make the classes in a signature's "types": {"enum": ...}, {"model": ...}, {"import": path}, {"value": name}."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .enum_specs import enum_class


def classes_from_specs(
    specs: Mapping[str, Any],
    imported: Callable[[str, str], Any],
    refused: Callable[[str, str], Exception],
    *,
    prefers_import: bool = False,
) -> dict[str, Any]:
    """Return the classes that a signature's "types" describe, by name.

    `imported` gives the class for a name and its path, or the name of code that was sent; `refused` makes what is
    raised for a name and a reason. `prefers_import` is of the side that can import: a spec may say both.
    """
    classes: dict[str, Any] = {}
    for name, spec in specs.items():
        match spec:
            case {"import": str() as path} if prefers_import:
                classes[name] = imported(name, path)
            case {"enum": dict() as members}:
                classes[name] = enum_class(name, members, spec.get("doc"))
            case {"model": dict() as schema}:
                classes[name] = _model(name, schema, classes, refused)
            case {"import": str() as path} | {"value": str() as path} | {"local": str() as path}:
                classes[name] = imported(name, path)
            case _:
                raise refused(name, "is described neither as an enum, nor as a model, nor as an import")
    return classes


def _model(name: str, schema: Any, known: Mapping[str, Any], refused: Callable[[str, str], Exception]) -> Any:
    from .models_from_schema import Unbuildable, model_from_schema  # pydantic with it

    try:
        return model_from_schema(schema, name, known)
    except Unbuildable as error:
        raise refused(name, f"cannot be rebuilt {error}") from error
