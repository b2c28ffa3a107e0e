"""`Component`: what a callback is called for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Component:
    """The module, language model, tool or adapter that a callback is called for; the `instance` of its methods.

    `kind` is "module", "lm", "tool", "adapter_format" or "adapter_parse"; `type` the name of its class. `name` is a
    predictor's in its program, or a tool's; `model` a language model's. `parent` is the call_id of what it runs in.
    """

    kind: str
    type: str
    name: str = ""
    model: str = ""
    parent: str | None = None
