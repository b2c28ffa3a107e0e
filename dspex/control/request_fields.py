"""Read the fields of a client's request, which came over the socket without types. Pure."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidInput

Fields = dict[str, Any]


def text(fields: Fields, name: str) -> str:
    """Return a text.

    Raises:
        InvalidInput: it is missing, or something else.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be text, not {type(value).__name__}.", field=name)
    return value


def optional_text(fields: Fields, name: str) -> str | None:
    """Return a text, or None if it is missing.

    Raises:
        InvalidInput: it is something else.
    """
    return None if fields.get(name) is None else text(fields, name)


def flag(fields: Fields, name: str) -> bool:
    """Return whether the field is true; anything else is false."""
    return fields.get(name) is True


def seconds(fields: Fields, name: str) -> float | None:
    """Return a span, or None if it is missing.

    Raises:
        InvalidInput: it is no number, negative, or NaN.
    """
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InvalidInput(f"{name} must be a number of seconds, 0 or more, or absent.", field=name)
    return float(value)


def count(fields: Fields, name: str, *, default: int | None = None) -> int:
    """Return a whole number, 0 or more.

    Raises:
        InvalidInput: it is something else.
    """
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{name} must be a whole number, 0 or more.", field=name)
    return value
