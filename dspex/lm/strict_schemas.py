"""Word a pydantic model as a response format: its JSON schema, as strict structured outputs take it. Pure.

Follows the strict form of dspy/clients/legacy_requests.py (3.4.1), so that a request's body is the same on both routes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError

_FORMAT = "response_format"


def with_plain_format(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return options whose `response_format` is no class, but what stands for it.

    Raises:
        SettingsError: the class has no JSON schema.
    """
    given = options.get(_FORMAT)
    return {**options, _FORMAT: _format_of(given)} if _is_model(given) else options


def _is_model(given: Any) -> bool:
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)  # who has a model has imported pydantic
    return isinstance(given, type) and isinstance(base, type) and issubclass(given, base)


def _format_of(model: Any) -> dict[str, Any]:
    try:
        schema = strict(model.model_json_schema())
    except (ValueError, TypeError, RecursionError, SystemError) as error:
        raise SettingsError(
            f"response_format is {model.__name__}, which has no JSON schema: {error}", key=_FORMAT
        ) from error
    return {"type": "json_schema", "json_schema": {"name": model.__name__, "schema": schema, "strict": True}}


def strict(part: Any, root: dict[str, Any] | None = None) -> Any:
    """Return the schema as strict structured outputs take it: no None defaults, no `$ref` beside other keys.

    Raises:
        ValueError: it refers to what it does not hold.
    """
    if not isinstance(part, dict):
        return part
    top: dict[str, Any] = part if root is None else root
    out = dict(part)
    if isinstance(out.get("$defs"), dict):
        out["$defs"] = {name: strict(each, top) for name, each in out["$defs"].items()}
    if out.get("type") == "object" and "additionalProperties" not in out:
        out["additionalProperties"] = False
    if isinstance(out.get("properties"), dict):
        out["required"] = list(out["properties"])
        out["properties"] = {name: strict(each, top) for name, each in out["properties"].items()}
    if isinstance(out.get("items"), dict):
        out["items"] = strict(out["items"], top)
    if isinstance(out.get("anyOf"), list):
        out["anyOf"] = [strict(each, top) for each in out["anyOf"]]
    out = _one_of_all(out, top)
    if "default" in out and out["default"] is None:
        del out["default"]
    return _unreferenced(out, top)


def _one_of_all(out: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    parts = out.get("allOf")
    if not isinstance(parts, list):
        return out
    if len(parts) == 1:
        del out["allOf"]
        return {**out, **strict(parts[0], top)}
    return {**out, "allOf": [strict(each, top) for each in parts]}


def _unreferenced(out: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    reference = out.get("$ref")
    if not isinstance(reference, str) or len(out) == 1:
        return out
    found = _resolved(top, reference)
    if not isinstance(found, dict):
        return out
    return {**strict(found, top), **{key: value for key, value in out.items() if key != "$ref"}}


def _resolved(top: dict[str, Any], reference: str) -> Any:
    found: Any = top
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            raise ValueError(f"the schema refers to {reference}, which it does not hold")
    return found
