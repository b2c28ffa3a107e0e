"""Read the outputs out of an answer in XML, with DSPy's leniency and its quirks (dspy/adapters/xml_adapter.py 3.4.1).

Python's own expat reads the text, in time that grows with its length. A reply is the inside of one element, so it can
declare no entities, and nothing of it expands; what is nested very deep is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..signatures.field import Field
from ..types.parse_budget import TooCostly, budget_for
from .parsing import ValueParser

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

Schema = Mapping[str, Any]
_ROOT: Final = "dspy_root"
TAGS_MOST: Final = 100_000  # in an answer: 10 to 20 us each
STEPS_PER_TAG: Final = 16
_PIECE: Final = 16 * 1024  # characters: while expat reads one, no other thread runs
_NOTHING_READ: Final = object()


class NotXML(ValueError):
    """The text is not the inside of an element."""


class UnsendableText(TypeError):
    """The text has half a surrogate pair. No ValueError: DSPy does not ask again for such an answer."""


def elements_in(text: str) -> dict[str, list[Element]]:
    """Return the outermost elements of a text, by name.

    Raises:
        NotXML: there is none, or the text is damaged.
        UnsendableText: it holds half a surrogate pair.
        TooCostly: it has very many tags.
        Paused: more than a trial may read.
    """
    from xml.etree import ElementTree

    budget, tags = budget_for(text), text.count("<")
    budget.pause_before(tags * STEPS_PER_TAG)
    if tags > TAGS_MOST:
        budget.refuse(f"it has {tags:,} tags, over {TAGS_MOST:,}", "Ask for a shorter answer, or for JSON.")
    parser = ElementTree.XMLParser()
    try:
        parser.feed(f"<{_ROOT}>")
        for at in range(0, len(text), _PIECE):
            parser.feed(text[at : at + _PIECE])
        parser.feed(f"</{_ROOT}>")
        return _grouped(parser.close())
    except ElementTree.ParseError as error:
        raise NotXML(f"it is not XML: {error}") from error
    except UnicodeEncodeError as error:
        raise UnsendableText("half a surrogate pair in XML") from error


class XMLValueParser(ValueParser):
    """Reads the value of one output field out of its elements."""

    def __init__(self, field: Field) -> None:
        super().__init__(field)
        self._read_plain = self.read
        self.read = self._of_elements

    @functools.cached_property
    def _schema(self) -> Schema:
        schema: Schema = self.adapter.json_schema(by_alias=False)
        return schema

    def _of_elements(self, elements: list[Element]) -> Any:
        """Return the value; the choices of a union are tried in turn.

        Raises:
            UNREADABLE: one of these.
        """
        schema, tried = self._schema, _NOTHING_READ
        definitions = schema.get("$defs", {})
        failure: ValueError | None = None
        for choice in (schema, *schema.get("anyOf", ())):
            try:
                plain = _plain(elements, choice, definitions)
                if failure is None or plain != tried:
                    tried = plain
                    return self._value(plain)
            except TooCostly:
                raise
            except ValueError as error:
                failure = error
        assert failure is not None
        raise failure

    def _value(self, plain: Any) -> Any:
        from pydantic import ValidationError

        try:
            return self._read_plain(plain)
        except ValidationError:
            return self.validated(plain, by_name=True)


def _grouped(element: Element) -> dict[str, list[Element]]:
    """Return the children by their names; an `entry` is called what its key says."""
    found: dict[str, list[Element]] = {}
    for child in element:
        name = child.attrib.get("key", child.tag) if child.tag == "entry" else child.tag
        found.setdefault(name, []).append(child)
    return found


def _plain(elements: list[Element], schema: Schema, definitions: Schema) -> Any:
    """Return plain data: what the elements hold, as far as the schema says how it is to be read."""
    schema = definitions.get(schema.get("$ref", "").rsplit("/", 1)[-1], schema)
    first = elements[0]
    if choices := schema.get("anyOf"):
        if {"type": "null"} in choices and not len(first) and not _text(first):
            return None
        schema = _chosen([choice for choice in choices if choice.get("type") != "null"], first)
    if schema.get("type") == "array":
        return _items(elements, schema.get("items", {}), definitions)
    if schema.get("type") == "string" and len(first):
        return _markup(first)
    members = _grouped(first)
    if not members:
        if schema.get("type") == "object" and not _text(first):
            return {}
        texts = [_text(element) for element in elements]
        return texts[0] if len(texts) == 1 else texts
    others = schema.get("additionalProperties", {})
    others = others if isinstance(others, dict) else {}
    known = schema.get("properties", {})
    return {name: _plain(inside, known.get(name, others), definitions) for name, inside in members.items()}


def _chosen(choices: list[Schema], element: Element) -> Schema:
    """Return the first choice; of an element that holds others, the first that is no text."""
    if len(element):
        return next((choice for choice in choices if choice.get("type") != "string"), choices[0])
    return choices[0]


def _items(elements: list[Element], schema: Schema, definitions: Schema) -> Any:
    if len(elements) == 1:
        only = elements[0]
        if not len(only):
            text = _text(only)
            if not text or text.startswith("["):
                return text or []
        elements = _grouped(only).get("item") or elements
    return [_plain([element], schema, definitions) for element in elements]


def _text(element: Element) -> str:
    return (element.text or "").strip()


def _markup(element: Element) -> str:
    """Return what an element of text holds, with the elements in it as they were written."""
    from xml.etree import ElementTree

    return (element.text or "") + "".join(ElementTree.tostring(child, encoding="unicode") for child in element)
