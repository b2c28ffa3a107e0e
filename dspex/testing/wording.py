"""Word an answer, given as output fields, as the request's adapter would read it. Pure."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any

from . import prompt_reader
from .script import FakeRequest, Plain

_REASONING = "It follows from the inputs."


def words_for(request: FakeRequest, answer: Plain | None) -> str | None:
    """Return the answer as text: a dict is worded as DSPy's chat, JSON or XML adapter would read it."""
    if answer is None or isinstance(answer, str):
        return answer
    fields = dict(answer)
    if "reasoning" in request.outputs and "reasoning" not in fields:
        fields = {"reasoning": _REASONING, **fields}
    style = style_of(request)
    if style == "chat":
        blocks = [f"[[ ## {name} ## ]]\n{_text(value)}" for name, value in fields.items()]
        return "\n\n".join([*blocks, "[[ ## completed ## ]]\n"])
    if style == "xml":
        return "\n\n".join(f"<{name}>\n{_escaped(_text(value))}\n</{name}>" for name, value in fields.items())
    return json.dumps(fields, ensure_ascii=False, default=_plain)


def style_of(request: FakeRequest) -> str:
    """Return which adapter wrote the request: "chat", "xml" or "json"."""
    held = request.body.get("output_config") or request.body.get("text") or {}
    form = request.body.get("response_format") or held.get("format")
    if form is not None:
        return "json"
    return prompt_reader.style_of_reminder(request.ask) or prompt_reader.style_of_system(request.text)


def _text(value: Any) -> str:
    value = value if isinstance(value, str | Mapping | list) else _plain_or_self(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _plain_or_self(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else _plain(value)


def _plain(value: Any) -> Any:
    """Return the JSON form of a value that json does not know: as pydantic would write it.

    Raises:
        TypeError: it has none.
    """
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if isinstance(value, enum.Enum):
        return value.value
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value)  # dates, decimals, sets, dataclasses, paths
    except PydanticSerializationError as error:
        raise TypeError(f"{type(value).__name__} has no JSON form: {error}") from None
