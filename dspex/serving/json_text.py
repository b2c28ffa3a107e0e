"""Read and write JSON as the standard has it: no NaN, no infinity, nothing that is nested without end. Pure."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from pydantic_core import from_json

from .request_refused import RequestRefused


def json_bytes(value: Any) -> bytes:
    """Return plain data as JSON; bytes as base64, and numbers that JSON has not as null."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_base64)
    except ValueError:
        return json_bytes(_finite(value))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_base64).encode()


def read_json(body: bytes) -> Any:
    """Return what the JSON says.

    Raises:
        RequestRefused: it is none.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestRefused(400, "The body is no JSON", f"The body is no JSON: {error}.") from None


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
