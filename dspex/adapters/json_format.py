"""The JSON format: inputs under headers, the answer as one JSON object (DSPy's JSONAdapter)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from ..signatures.field import Field
from ..types.lenient_json import first_object, loads
from .chat_format import PREAMBLE, ChatFormat, placeholders, wish
from .rendering import jsonable, placeholder


class NotAnObject(ValueError):
    """The text holds no JSON object."""


class JSONFormat(ChatFormat):
    """Writes and splits the JSON format; stateless."""

    name: ClassVar[str] = "json"
    dspy_name: ClassVar[str] = "JSONAdapter"
    is_object: ClassVar[bool] = True

    def structure(self, inputs: Mapping[str, Field], outputs: Mapping[str, Field]) -> str:
        shown = (
            PREAMBLE,
            "Inputs will have the following structure:",
            placeholders(inputs),
            "Outputs will be a JSON object with the following fields.",
            _indented({name: placeholder(field) for name, field in outputs.items()}),
        )
        return "\n\n".join(shown).strip()

    def requirements(self, outputs: Mapping[str, Field]) -> str:
        wanted = ", then ".join(f"`{name}`{wish(field)}" for name, field in outputs.items())
        return f"Respond with a JSON object in the following order of fields: {wanted}."

    def answer(self, outputs: Mapping[str, Field], values: Mapping[str, Any], missing: str | None) -> str:
        return _indented(jsonable({name: values.get(name, missing) for name in outputs}))

    def split(self, text: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the wanted members of the object in `text`, repaired where it is not quite JSON.

        Raises:
            NotAnObject: nothing can be made of the text, or but an array or a word.
        """
        found = loads(text)
        if not isinstance(found, dict):
            found = first_object(text)
        if not isinstance(found, dict):
            raise NotAnObject("the answer holds no JSON object")
        return {name: value for name, value in found.items() if name in wanted}

    def no_parts(self, error: BaseException) -> str:
        return "it holds no JSON object"


def _indented(plain: Any) -> str:
    return json.dumps(plain, indent=2, ensure_ascii=False)
