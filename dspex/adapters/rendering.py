"""Render values and types as text: an input in a prompt, and the name of a type.

Follows dspy/adapters/utils.py of DSPy 3.4.1 byte for byte; the parity tests compare with it. pydantic is imported
when the first value that needs it is met.
"""

from __future__ import annotations

import enum
import functools
import inspect
import json
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

from ..signatures.annotations import is_dspy_type
from ..signatures.field import Field

_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_NOTE: Final = "        # note: the value you produce "


def render(value: Any, annotation: Any) -> str:
    """Return the text that stands for `value` in a field of this type.

    Raises:
        TypeError: a list in a `str` field whose items are not text (DSPy raises the same).
    """
    if type(value) is str:
        return value
    if annotation is str and isinstance(value, list):
        return _numbered(value)
    plain = jsonable(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, dict | list) else str(plain)


def jsonable(value: Any) -> Any:
    """Return the value as JSON would hold it; what pydantic cannot serialize becomes its `str()`, item by item."""
    if type(value) in _PLAIN:
        return value
    dump = _dumper(cast("Hashable", type(value)))
    if dump is None:
        return str(value)
    try:
        return dump(value)
    except Exception:  # pydantic raises several kinds here; DSPy answers each of them with str()
        return str(value)


@functools.lru_cache(maxsize=512)
def _dumper(kind: Any) -> Callable[[Any], Any] | None:
    from pydantic import TypeAdapter

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
    except Exception:  # a type without a schema: its values are shown by str()
        return None
    return functools.partial(adapter.dump_python, mode="json", fallback=str)


def _numbered(items: list[Any]) -> str:
    if not items:
        return "N/A"
    if len(items) == 1:
        return _quoted(items[0])
    return "\n".join([f"[{number}] {_quoted(item)}" for number, item in enumerate(items, 1)])


def _quoted(item: Any) -> str:
    if "\n" not in item and "«" not in item and "»" not in item:
        return f"«{item}»"
    indented = item.replace("\n", "\n    ")
    return f"«««\n    {indented}\n»»»"


# --- types --------------------------------------------------------------------------------------------------------


def type_name(annotation: Any) -> str:
    """Return what prompts call a type: `list[str]`, `Union[str, NoneType]`, `Literal['a', 'b']`."""
    origin = get_origin(annotation)
    if origin is None:
        if is_dspy_type(annotation) and annotation.dspy_name == "dspy.Reasoning":
            return "str"
        return str(annotation.__name__ if hasattr(annotation, "__name__") else annotation)
    origin = Union if origin is types.UnionType else origin
    inner = ", ".join(
        _literal_quoted(each) if origin is Literal and isinstance(each, str) else type_name(each)
        for each in get_args(annotation)
    )
    return f"{type_name(origin)}[{inner}]"


def _literal_quoted(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


def placeholder(field: Field) -> str:
    """Return `{name}`, with a note on what an output must look like."""
    wish = _wish(field)
    return f"{{{field.name}}}{_NOTE}{wish}" if wish else f"{{{field.name}}}"


def _wish(field: Field) -> str:
    kind = field.annotation
    if field.kind == "input" or kind is str or _is_dspy(kind, "dspy.Reasoning"):
        return ""
    if kind is bool:
        return "must be True or False"
    if kind in (int, float):
        return f"must be a single {kind.__name__} value"
    if inspect.isclass(kind) and issubclass(kind, enum.Enum):
        return f"must be one of: {'; '.join(str(member.value) for member in kind)}"
    if get_origin(kind) is Literal:
        return f"must exactly match (no extra characters) one of: {'; '.join(str(each) for each in get_args(kind))}"
    if _is_dspy(kind, "dspy.Code"):
        return ""  # its description already says it
    return f"must adhere to the JSON schema: {json.dumps(json_schema(kind), ensure_ascii=False)}"


def _is_dspy(annotation: Any, name: str) -> bool:
    return is_dspy_type(annotation) and str(annotation.dspy_name).partition("[")[0] == name


def json_schema(annotation: Any) -> Any:
    """Return pydantic's JSON schema with sorted keys, `type` first."""
    from pydantic import TypeAdapter

    return _type_first(TypeAdapter(annotation).json_schema())


def _type_first(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _type_first(schema[key]) for key in sorted(schema, key=lambda key: (key != "type", key))}
    return [_type_first(item) for item in schema] if isinstance(schema, list) else schema


def described(fields: Mapping[str, Field]) -> str:
    """Return the numbered list of fields with their types, descriptions and constraints."""
    return "\n".join(_described(number, field) for number, field in enumerate(fields.values(), 1)).strip()


def _described(number: int, field: Field) -> str:
    constraints = f"\nConstraints: {field.constraint_text}" if field.constraint_text else ""
    kinds = "".join(
        f"\n    Type description of {type_name(kind)}: {kind.description()}"
        for kind in _dspy_types_named(field.annotation)
        if hasattr(kind, "description") and kind.description()
    )
    return f"{number}. `{field.name}` ({type_name(field.annotation)}): {field.shown_desc}{kinds}{constraints}"


def _dspy_types_named(annotation: Any) -> list[Any]:
    if is_dspy_type(annotation):
        return [annotation]
    return [kind for argument in get_args(annotation) for kind in _dspy_types_named(argument)]
