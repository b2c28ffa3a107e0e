"""The response format that DSPy's JSON adapter asks for: a strict JSON schema, any object, or none.

Follows dspy/adapters/json_adapter.py and the strict form of dspy/clients/legacy_requests.py (3.4.1), so that a
request's body is the same on both routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_origin

from ..errors import SignatureError
from ..lm.strict_schemas import strict
from ..signatures.field import MISSING, Field
from .function_calling import is_tool_calls

ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "json_object"}
_NAME: Final = "DSPyProgramOutputs"


def response_format(outputs: Mapping[str, Field], *, is_native: bool = True) -> dict[str, Any]:
    """Return the format for a model that takes schemas; `json_object` where no strict schema describes the outputs.

    Tool calls are no part of the object where function calling is native; where it is not, no schema is asked for.
    """
    if any(get_origin(field.annotation) is dict for field in outputs.values()):
        return dict(ANY_OBJECT)
    called = {name for name, field in outputs.items() if is_tool_calls(field.annotation)}
    if called and not is_native:
        return dict(ANY_OBJECT)
    outputs = {name: field for name, field in outputs.items() if name not in called}
    try:
        schema = strict(_closed(_outputs_schema(outputs)))
    except ValueError:
        return dict(ANY_OBJECT)
    except RecursionError:
        raise SignatureError(
            "A model of the outputs refers to itself beside a description or default of its own: its strict schema has "
            "no end, in DSPy neither. Make that member Optional or a list, or use the chat adapter."
        ) from None
    return {"type": "json_schema", "json_schema": {"name": _NAME, "schema": schema, "strict": True}}


def _outputs_schema(outputs: Mapping[str, Field]) -> dict[str, Any]:
    import pydantic

    # Under aliases, which the schema shows: pydantic warns of members that are called `json` or `model_x`.
    members: dict[str, Any] = {
        f"output_{at}": (field.annotation, pydantic.Field(_default(field), alias=name))
        for at, (name, field) in enumerate(outputs.items())
    }
    try:
        model = pydantic.create_model(_NAME, __config__=pydantic.ConfigDict(extra="forbid"), **members)
        schema: dict[str, Any] = model.model_json_schema()
    except (pydantic.errors.PydanticInvalidForJsonSchema, pydantic.errors.PydanticSchemaGenerationError) as error:
        raise ValueError(str(error)) from error
    return schema


def _default(field: Field) -> Any:
    return ... if field.default is MISSING else field.default


def _closed(part: dict[str, Any]) -> dict[str, Any]:
    """Close every object and require all its members, in place."""
    if part.get("type") == "object":
        members = part.setdefault("properties", {})
        part["required"] = list(members)
        part["additionalProperties"] = False
        for member in members.values():
            if isinstance(member, dict):
                _closed(member)
    if part.get("type") == "array" and isinstance(part.get("items"), dict):
        _closed(part["items"])
    for definition in part.get("$defs", {}).values():
        _closed(definition)
    return part
