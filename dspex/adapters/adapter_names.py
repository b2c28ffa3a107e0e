"""Name the adapters that a program may use."""

from __future__ import annotations

from typing import Literal, get_args

Adapter = Literal["chat", "json", "xml", "two_step"]
ADAPTERS: tuple[str, ...] = get_args(Adapter)
