"""`CallClient`: the other process that a call is made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class CallClient:
    """Whom a call is made for. Its calls take turns with other clients'; its `handlers` answer their callbacks.

    What it has no handler for, the supervisor's own answer.
    """

    name: str
    handlers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
