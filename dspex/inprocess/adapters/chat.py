"""The chat format: fields under `[[ ## name ## ]]` headers, in prompts and in answers (DSPy's ChatAdapter)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from dspex.errors import InvalidInput
from dspex.inprocess.adapters.tool_calling import is_tool_calls
from dspex.inprocess.adapters.values import placeholder, render, type_name
from dspex.inprocess.fields import Field

HEADER: Final = re.compile(r"\[\[ ## (\w+) ## \]\]")
_PREAMBLE: Final = "All interactions will be structured in the following way, with the appropriate values filled in."


class Chat:
    """How the chat format writes and splits; stateless."""

    name: ClassVar[str] = "chat"
    dspy_name: ClassVar[str] = "ChatAdapter"

    def structure(self, inputs: Mapping[str, Field], outputs: Mapping[str, Field]) -> str:
        """The part of the system message that shows where every field goes."""
        shown = (_PREAMBLE, _placeholders(inputs), _placeholders(outputs), "[[ ## completed ## ]]\n")
        return "\n\n".join(shown).strip()

    def requirements(self, outputs: Mapping[str, Field]) -> str:
        """The reminder at the end of the current user message."""
        wanted = ", then ".join(f"`[[ ## {name} ## ]]`{wish(field)}" for name, field in outputs.items())
        return (
            f"Respond with the corresponding output fields, starting with the field {wanted}, "
            "and then ending with the marker for `[[ ## completed ## ]]`."
        )

    def answer(self, outputs: Mapping[str, Field], values: Mapping[str, Any], missing: str | None) -> str:
        """An assistant message that gives these values; `missing` stands for those that are not there."""
        shown = (section(name, values.get(name, missing), field.annotation) for name, field in outputs.items())
        return "\n\n".join(shown).strip() + "\n\n[[ ## completed ## ]]\n"

    def split(self, text: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The text of each wanted field, by header; the first section of a name counts, as in DSPy."""
        found: dict[str, str] = {}
        name: str | None = None
        lines: list[str] = []
        for line in text.splitlines():
            header = HEADER.match(line.strip()) if "[[ ## " in line else None
            if header is None:
                lines.append(line)
                continue
            _keep(found, name, lines, wanted)
            name = header.group(1)
            # Matched on the stripped line, cut from the whole one: so DSPy treats the rest of an indented header.
            rest = line[header.end() :].strip()
            lines = [rest] if rest else []
        _keep(found, name, lines, wanted)
        return found


def section(name: str, value: Any, annotation: Any) -> str:
    """One field under its header.

    Raises: InvalidInput for a list in a text field whose items are not all text (DSPy: TypeError).
    """
    try:
        return f"[[ ## {name} ## ]]\n{value if type(value) is str else render(value, annotation)}"
    except TypeError as error:
        message = f"The value of {name!r} is a list for a text field, and not all items are text."
        raise InvalidInput(message, field=name) from error


def wish(field: Field) -> str:
    """What the reminder says of an output's type; nothing for text."""
    if is_tool_calls(field.annotation):
        return ' (must be a JSON object like {"tool_calls": [{"name": "...", "args": {...}}]})'
    return "" if field.annotation is str else f" (must be formatted as a valid Python {type_name(field.annotation)})"


def _keep(found: dict[str, str], name: str | None, lines: Iterable[str], wanted: Mapping[str, Any]) -> None:
    if name is not None and name in wanted and name not in found:
        found[name] = "\n".join(lines).strip()


def _placeholders(fields: Mapping[str, Field]) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{placeholder(field)}" for name, field in fields.items()).strip()
