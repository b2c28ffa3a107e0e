"""The BAML format: as JSON, but the types of the outputs are shown as a short sketch (DSPy's BAMLAdapter).

Follows dspy/adapters/baml_adapter.py 3.4.1 byte for byte: only fields of its own kinds of type are sketched, every
other by its name.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal, Union, get_args, get_origin

from ..errors import InvalidInput, SignatureError
from ..signatures.field import Field
from ..signatures.signature import Signature
from .chat_format import PREAMBLE
from .json_format import JSONFormat
from .unsupported import holds_dspy_types

_WORDS: Final[Mapping[Any, str]] = {str: "string", int: "int", float: "float", bool: "boolean"}
_STEP: Final = "  "


class BAMLFormat(JSONFormat):
    """Writes the BAML format, and splits answers as JSON; stateless."""

    name: ClassVar[str] = "baml"
    dspy_name: ClassVar[str] = "BAMLAdapter"

    def structure(self, inputs: Mapping[str, Field], outputs: Mapping[str, Field]) -> str:
        """Return the part of the system message that shows where every field goes.

        Raises:
            SignatureError: a model that holds itself, or is in two places of one output.
        """
        lines = [f"{PREAMBLE}\n"]
        for name in inputs:
            lines += [f"[[ ## {name} ## ]]", f"{{{name}}}", ""]
        for name, field in outputs.items():
            shown = _sketch(field.annotation, 0)
            lines += [f"[[ ## {name} ## ]]", f"Output field `{name}` should be of type: {shown}\n"]
        return "\n".join([*lines, "[[ ## completed ## ]]"])

    def input(self, field: Field, value: Any) -> str:
        if hasattr(type(value), "model_fields"):
            try:
                shown: str = value.model_dump_json(indent=2, by_alias=True)
            except ValueError as error:
                message = f"The value of {field.name!r} cannot be shown as JSON ({type(error).__name__})."
                raise InvalidInput(message, field=field.name) from error
            return f"[[ ## {field.name} ## ]]\n{shown}"
        return super().input(field, value)

    def unsupported(self, sig: Signature) -> str | None:
        # Of DSPy's own types the sketch would quote the documentation, and a value would be shown by its own JSON.
        for field in sig.fields.values():
            if holds_dspy_types(field):
                return f"the {field.kind} {field.name!r} is of a type of DSPy's, which this adapter shows in workers"
        return None


def _sketch(annotation: Any, indent: int, within: set[type] | None = None) -> str:
    """Return the sketch of a type; `within`: the models that were shown since the outermost one began."""
    for kind, word in _WORDS.items():
        if annotation is kind:
            return word
    if _is_model(annotation):
        return _model_sketch(annotation, indent, within)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kinds = [_sketch(kind, indent, within) for kind in arguments if kind is not type(None)]
        return " or ".join([*kinds, "null"] if len(kinds) < len(arguments) else kinds)
    if origin is Literal:
        return " or ".join(map(_choice, arguments))
    if origin is list and _is_model(arguments[0]):
        return f"[\n{_model_sketch(arguments[0], indent + 1, within)}\n{_STEP * indent}]"
    if origin is list:
        return f"{_sketch(arguments[0], indent, within)}[]"
    if origin is dict:
        return f"dict[{_sketch(arguments[0], indent, within)}, {_sketch(arguments[1], indent, within)}]"
    return str(annotation.__name__ if hasattr(annotation, "__name__") else annotation)


def _model_sketch(kind: Any, indent: int, within: set[type] | None) -> str:
    within = set() if within is None else within
    if kind in within:
        raise SignatureError(
            f"The baml adapter cannot show {kind.__name__}, which holds itself or is in two places of one output: in "
            f"DSPy neither. Take another adapter."
        )
    within.add(kind)
    begin, inside = _STEP * indent, _STEP * (indent + 1)
    lines = [f"{begin}# {line}" for line in _doc_lines(kind)] if indent == 0 else []
    lines.append(f"{begin}{{")
    if not kind.model_fields:
        lines.append(f"{inside}# No fields defined")
    for name, member in kind.model_fields.items():
        lines += [f"{inside}# {note}" for note in _notes(name, member)]
        lines.append(f"{inside}{name}: {_sketch(member.annotation, indent + 1, within)},")
    return "\n".join([*lines, f"{begin}}}"])


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and hasattr(kind, "model_fields")


def _notes(name: str, member: Any) -> Iterator[str]:
    """Yield what is said of a member above it."""
    if member.description:
        yield member.description
    elif member.alias and member.alias != name:
        yield f"alias: {member.alias}"
    kind = member.annotation
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [each for each in get_args(kind) if each is not type(None)]
        kind = kinds[0] if len(kinds) == 1 else kind
    if _is_model(kind):
        yield from _doc_lines(kind)


def _doc_lines(kind: Any) -> list[str]:
    lines = (kind.__doc__ or "").strip().split("\n")
    return [line.strip() for line in lines if line.strip()]


def _choice(member: Any) -> str:
    if isinstance(member, str):
        return f'"{member}"'
    if isinstance(member, bool):
        return "true" if member else "false"
    return "null" if member is None else str(member)
