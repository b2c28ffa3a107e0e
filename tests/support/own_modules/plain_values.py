"""What a program returned as JSON that tells its kind, alike for DSPy's own classes and DSPex's; imports neither."""

from __future__ import annotations

import base64
import dataclasses
import enum
from typing import Any


def plain(value: Any) -> Any:
    """The value; classes that JSON lacks become {"kind": ...}."""
    if isinstance(value, enum.Enum):
        return {"enum": plain(value.value)}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    kind = type(value).__name__
    if kind in ("Prediction", "Example"):
        return {kind.lower(): {name: plain(item) for name, item in _fields(value).items()}}
    if isinstance(value, dict):
        return {"dict": {str(key): plain(item) for key, item in value.items()}}
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain(item) for item in value]
        return {kind: items} if kind != "list" else items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"dataclass": {name: plain(item) for name, item in vars(value).items()}}
    if hasattr(value, "model_dump"):
        return {"model": plain(value.model_dump(mode="json"))}
    return {kind: str(value)}


def _fields(value: Any) -> dict[str, Any]:
    return dict(value.items())
