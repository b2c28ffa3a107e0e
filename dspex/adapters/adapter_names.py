"""Name the adapters that a program may use."""

from __future__ import annotations

from typing import Literal, get_args

AdapterName = Literal["chat", "json", "xml", "baml", "two_step"]
ADAPTERS: tuple[str, ...] = get_args(AdapterName)
OBJECT_ADAPTERS = frozenset({"json", "baml"})  # answered with one JSON object; those of DSPy never ask again
