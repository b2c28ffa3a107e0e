"""Convert enums to plain data and back."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any


def enum_spec(kind: type[enum.Enum], plain: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the description of an enum, each value made plain; its docstring belongs to its schema."""
    members = {name: plain(member.value) for name, member in kind.__members__.items()}
    return {"enum": members, "doc": kind.__doc__} if kind.__doc__ else {"enum": members}


def enum_class(name: str, members: Mapping[str, Any], doc: str | None) -> Any:
    """Return an enum with these members, in this order."""
    make: Any = enum.Enum  # its functional form, of which type checkers know only literal calls
    made = make(name, dict(members))
    made.__doc__ = doc
    return made
