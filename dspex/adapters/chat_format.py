"""The chat format: fields under `[[ ## name ## ]]` headers, in prompts and in answers (DSPy's ChatAdapter)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from ..errors import InvalidInput
from ..signatures.field import Field
from ..signatures.signature import Signature
from ..types.parse_budget import budget_for
from .function_calling import is_tool_calls
from .parsing import ValueParser
from .rendering import described, placeholder, render, type_name

HEADER: Final = re.compile(r"\[\[ ## (\w+) ## \]\]")
HEADER_BEGIN: Final = "[[ ## "
HEADERS_MOST: Final = 50_000  # lines that may be one: 2 us each
_LINE_ENDS: Final = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # beside the line feed
_ASCII_LINE_ENDS: Final = "".join(filter(str.isascii, _LINE_ENDS))
PREAMBLE: Final = "All interactions will be structured in the following way, with the appropriate values filled in."


class ChatFormat:
    """Writes and splits the chat format; stateless. The base of the others, which are asked for in the same way."""

    name: ClassVar[str] = "chat"
    dspy_name: ClassVar[str] = "ChatAdapter"
    is_object: ClassVar[bool] = False  # whether an answer is one JSON object, for which a schema may be asked
    shows_markers: ClassVar[bool] = True  # whether marked texts become content blocks

    def system(self, sig: Signature) -> str:
        """Return the system message."""
        inputs, outputs = sig.input_fields, sig.output_fields
        objective = ("\n" + " " * 8).join(["", *textwrap.dedent(sig.instructions).splitlines()])
        return (
            f"Your input fields are:\n{described(inputs)}\nYour output fields are:\n{described(outputs)}\n"
            f"{self.structure(inputs, outputs)}\n"
            f"In adhering to this structure, your objective is: {objective}"
        )

    def user(self, fields: Mapping[str, Field], values: Mapping[str, Any], last: str = "", first: str = "") -> str:
        """Return a user message: the fields that have values, after `first` and before `last`.

        Raises:
            InvalidInput: a value that cannot be shown.
        """
        parts = [first] if first else []
        for name, field in fields.items():
            if name in values:
                parts.append(self.input(field, values[name]))
        if last:
            parts.append(last)
        return "\n\n".join(parts).strip()

    def input(self, field: Field, value: Any) -> str:
        """Return one input.

        Raises:
            InvalidInput: as `section`.
        """
        return section(field.name, value, field.annotation)

    def reader(self, field: Field) -> ValueParser:
        """Return what reads this output's value out of its part of an answer."""
        return ValueParser(field)

    def no_parts(self, error: BaseException) -> str:
        """Return why `split` found nothing, without the answer's words."""
        return type(error).__name__

    def unsupported(self, sig: Signature) -> str | None:
        """Return why this format of the signature needs a worker; None where it does not."""
        return None

    def structure(self, inputs: Mapping[str, Field], outputs: Mapping[str, Field]) -> str:
        """Return the part of the system message that shows where every field goes."""
        shown = (PREAMBLE, placeholders(inputs), placeholders(outputs), "[[ ## completed ## ]]\n")
        return "\n\n".join(shown).strip()

    def requirements(self, outputs: Mapping[str, Field]) -> str:
        """Return the reminder at the end of the current user message."""
        wanted = ", then ".join(f"`[[ ## {name} ## ]]`{wish(field)}" for name, field in outputs.items())
        return (
            f"Respond with the corresponding output fields, starting with the field {wanted}, "
            "and then ending with the marker for `[[ ## completed ## ]]`."
        )

    def answer(self, outputs: Mapping[str, Field], values: Mapping[str, Any], missing: str | None) -> str:
        """Return an assistant message that gives these values; `missing` stands for those that are not there."""
        shown = (section(name, values.get(name, missing), field.annotation) for name, field in outputs.items())
        return "\n\n".join(shown).strip() + "\n\n[[ ## completed ## ]]\n"

    def split(self, text: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the text of each wanted field, by header; the first section of a name counts, as in DSPy.

        Line by line in meaning, header by header in work: a long text of short lines is not taken apart.

        Raises:
            TooCostly: a text of very many headers.
        """
        text = with_plain_line_ends(text)
        found: dict[str, str] = {}
        name, beside, begin = "", "", 0  # of the section that is open; no field has an empty name
        for at, end, next_name, next_beside in _headers(text):
            if name in wanted:
                found.setdefault(name, (beside + text[begin:at]).strip())
            name, beside, begin = next_name, next_beside, end
            if len(found) == len(wanted):
                return found
        if name in wanted:
            found.setdefault(name, (beside + text[begin:]).strip())
        return found


def with_plain_line_ends(text: str) -> str:
    """Return the text with a line feed wherever `str.splitlines` ends a line."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    for end in _ASCII_LINE_ENDS if text.isascii() else _LINE_ENDS:
        if end in text:
            text = text.replace(end, "\n")
    return text


def _headers(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield (line start, line end, name, text beside the header) for each line with a header."""
    at = text.find(HEADER_BEGIN)
    for _ in range(HEADERS_MOST):
        if at < 0:
            return
        begin, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
        end = len(text) if end < 0 else end
        if (begin == at or text[begin:at].isspace()) and (header := HEADER.match(text, at, end)):
            # Matched on the stripped line, cut from the whole one: so DSPy treats the rest of an indented header.
            yield begin, end, header.group(1), text[begin + header.end() - at : end].strip()
        at = text.find(HEADER_BEGIN, end)
    budget_for(text).refuse(f"over {HEADERS_MOST:,} of its lines hold the begin of a field's header")


def section(name: str, value: Any, annotation: Any) -> str:
    """Return one field under its header.

    Raises:
        InvalidInput: a list in a text field whose items are not all text (DSPy: TypeError).
    """
    try:
        return f"[[ ## {name} ## ]]\n{value if type(value) is str else render(value, annotation)}"
    except TypeError as error:
        message = f"The value of {name!r} is a list for a text field, and not all items are text."
        raise InvalidInput(message, field=name) from error


def wish(field: Field) -> str:
    """Return the reminder's note on an output's type; empty for text."""
    if is_tool_calls(field.annotation):
        return ' (must be a JSON object like {"tool_calls": [{"name": "...", "args": {...}}]})'
    return "" if field.annotation is str else f" (must be formatted as a valid Python {type_name(field.annotation)})"


def placeholders(fields: Mapping[str, Field]) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{placeholder(field)}" for name, field in fields.items()).strip()
