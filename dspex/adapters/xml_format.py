"""The XML format: each field in an element of its name, the members of outputs in elements inside (DSPy's XMLAdapter).

Follows dspy/adapters/xml_adapter.py 3.4.1 byte for byte. How answers are read is `xml_values.py`'s.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, ClassVar, Union, get_args, get_origin

from ..errors import InvalidInput
from ..signatures.annotations import is_dspy_type
from ..signatures.field import Field
from .chat_format import PREAMBLE, ChatFormat
from .parsing import ValueParser
from .rendering import jsonable, placeholder, render
from .xml_values import NotXML, XMLValueParser, elements_in


class XMLFormat(ChatFormat):
    """Writes and splits the XML format; stateless."""

    name: ClassVar[str] = "xml"
    dspy_name: ClassVar[str] = "XMLAdapter"

    def structure(self, inputs: Mapping[str, Field], outputs: Mapping[str, Field]) -> str:
        shown_inputs = "\n\n".join(_element(name, placeholder(field)) for name, field in inputs.items())
        shown_outputs = "\n\n".join(
            _outline(name, field.annotation) if is_nested(field.annotation) else _element(name, placeholder(field))
            for name, field in outputs.items()
        )
        return "\n\n".join((PREAMBLE, shown_inputs, shown_outputs))

    def requirements(self, outputs: Mapping[str, Field]) -> str:
        names = ", then ".join(f"`<{name}>`" for name in outputs)
        nested = [_outline(name, field.annotation) for name, field in outputs.items() if is_nested(field.annotation)]
        inside = f" Use this nested XML structure: {' '.join(nested)}" if nested else ""
        return f"Respond with the corresponding output fields wrapped in XML tags {names}.{inside}"

    def user(self, fields: Mapping[str, Field], values: Mapping[str, Any], last: str = "", first: str = "") -> str:
        given = "\n\n".join(self.input(field, values[name]) for name, field in fields.items() if name in values)
        return "\n\n".join([first, given.strip(), *([last] if last else []), ""]).strip()

    def input(self, field: Field, value: Any) -> str:
        return _element(field.name, _text_of(field, value))

    def answer(self, outputs: Mapping[str, Field], values: Mapping[str, Any], missing: str | None) -> str:
        shown = (_output(name, field, values.get(name, missing)) for name, field in outputs.items())
        return "\n\n".join(shown).strip()

    def split(self, text: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the elements of each wanted field, in the order of the signature.

        Raises:
            NotXML: the text is not the inside of an element.
            UnsendableText: it holds half a surrogate pair, which XML cannot.
        """
        found = elements_in(text)
        return {name: found[name] for name in wanted if name in found}

    def no_parts(self, error: BaseException) -> str:
        return str(error) if isinstance(error, NotXML) else "XML cannot hold it"

    def reader(self, field: Field) -> ValueParser:
        return XMLValueParser(field)


def is_nested(annotation: Any) -> bool:
    """Whether the parts of an output of this type are elements of their own."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if len(kinds) == 1 and get_origin(annotation) in (Union, types.UnionType):
        annotation = kinds[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    item = arguments[0] if origin is list and arguments else annotation
    is_dspys = hasattr(item, "model_fields") and getattr(item, "__module__", "").startswith("dspy.")
    if is_dspys or is_dspy_type(item):
        return False
    is_model = isinstance(annotation, type) and hasattr(annotation, "model_fields")
    return origin in (list, dict) or is_model or _is_typed_dict(annotation)


def _is_typed_dict(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, dict) and hasattr(annotation, "__total__")


def _element(name: str, text: str) -> str:
    return f"<{name}>\n{text}\n</{name}>"


def _output(name: str, field: Field, value: Any) -> str:
    if is_nested(field.annotation):
        plain = jsonable(value)
        if isinstance(plain, dict | list):
            return _nested(plain, name)
    text = _text_of(field, value)
    return _element(name, _escaped(text) if field.annotation is str else text)


def _text_of(field: Field, value: Any) -> str:
    """Return the text of a value.

    Raises:
        InvalidInput: a list in a text field whose items are not all text (DSPy: TypeError).
    """
    try:
        return value if type(value) is str else render(value, field.annotation)
    except TypeError as error:
        message = f"The value of {field.name!r} is a list for a text field, and not all items are text."
        raise InvalidInput(message, field=field.name) from error


def _nested(value: Any, tag: str, key: str | None = None) -> str:
    """Return plain data as elements; a member whose name no tag can have is an `entry` with a key."""
    begin = tag if key is None else f"{tag} key={_quoted(key)}"
    if isinstance(value, list):
        inside = "".join(_nested(item, "item") for item in value)
        return f"<{begin}>{inside}</{tag}>" if inside else f"<{begin} />"
    if isinstance(value, dict):
        members = ((str(name), member) for name, member in value.items())
        inside = "".join(
            _nested(member, name) if _is_tag(name) else _nested(member, "entry", name) for name, member in members
        )
        return f"<{begin}>{inside}</{tag}>"
    return f"<{begin} />" if value is None else f"<{begin}>{_escaped(str(value))}</{tag}>"


def _quoted(text: str) -> str:
    from xml.sax.saxutils import quoteattr  # at first need: it loads urllib

    return quoteattr(text)


def _is_tag(name: str) -> bool:
    return f"{name[:1]}{name[1:].replace('-', '_').replace('.', '_')}".isidentifier()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


# --- the outline of a type ----------------------------------------------------------------------------------------


def _outline(tag: str, annotation: Any) -> str:
    """Return the elements that an output of this type is made of."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(annotation).json_schema(by_alias=False)
    return _outlined(tag, schema, schema.get("$defs", {}), frozenset())


def _outlined(tag: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], within: frozenset[str]) -> str:
    if reference := schema.get("$ref"):
        name = reference.rsplit("/", 1)[-1]
        if name in within:
            return f"<{tag}>...</{tag}>"
        return _outlined(tag, definitions[name], definitions, within | {name})
    if choices := schema.get("anyOf"):
        chosen = next((choice for choice in choices if choice.get("type") != "null"), choices[0])
        return _outlined(tag, chosen, definitions, within)
    if schema.get("type") == "array":
        return f"<{tag}>{_outlined('item', schema.get('items', {}), definitions, within)}</{tag}>"
    members = schema.get("properties", {}).items()
    inside = "".join(_outlined(name, member, definitions, within) for name, member in members)
    return f"<{tag}>{inside or '...'}</{tag}>"
