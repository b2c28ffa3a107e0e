"""The base of DSPy's own value types, which render themselves in prompts.

Importing this file imports pydantic; a signature that names none of these types never does.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pydantic

from .markers import END, START


class DspyType(pydantic.BaseModel):
    """The base of the types that prompts render in their own way; `dspy_name` is what signatures call them."""

    dspy_name: ClassVar[str] = ""

    @classmethod
    def description(cls) -> str:
        """Return the system message's text about the type; empty for most."""
        return ""

    def format(self) -> Any:
        """Return the content blocks, the text or the plain data that stand for the value in a user message."""
        raise NotImplementedError(f"{type(self).__name__} is rendered by workers only.")

    def to_wire(self) -> dict[str, Any] | str:
        """Return the value's members, as a worker needs them to make the same value; not yet plain all the way down."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @pydantic.model_serializer()
    def serialize_model(self) -> Any:
        """Return what a prompt shows: marked JSON for blocks, which the adapter cuts out again."""
        shown = self.format()
        return f"{START}{json.dumps(shown, ensure_ascii=False)}{END}" if isinstance(shown, list) else shown

    def __str__(self) -> str:
        return str(self.serialize_model())
