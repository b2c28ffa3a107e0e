"""Merge a call's options with its LM's: those sent with the request, and those decided here. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from .record import LM
from .sent_options import LOCAL


class CallOptions(TypedDict, total=False):
    """The options of a call beside its messages.

    `config` overrides the LM's generation options, `n` and `cache`; `deadline` is a `time.monotonic()` point.
    """

    config: Mapping[str, Any] | None
    response_format: Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    rollout_id: int | None
    deadline: float | None


class CallPlan:
    """A call prepared for one LM."""

    __slots__ = ("cache", "deadline", "lm", "n", "options", "rollout_id")

    def __init__(self, lm: LM, call: CallOptions) -> None:
        self.lm = lm
        self.n = lm.n
        self.cache = lm.cache
        self.rollout_id = call.get("rollout_id")
        self.deadline = call.get("deadline")
        self.options = options = lm.options()
        config = call.get("config")
        if config:
            options.update(config)
            self._take_local(options)
        response_format, tools = call.get("response_format"), call.get("tools")
        if response_format is not None:
            options["response_format"] = response_format
        if tools:
            options["tools"] = tools

    def _take_local(self, options: dict[str, Any]) -> None:
        for name in LOCAL:
            if name not in options:
                continue
            value = options.pop(name)
            if value is None:
                self.n = 1 if name == "n" else self.n  # DSPy lets a None of the call stand for one answer
            elif name == "cache":
                self.cache = bool(value)
            elif name == "rollout_id":
                self.rollout_id = int(value)
            else:
                self.n = int(value)
        for name in [name for name, value in options.items() if value is None]:
            del options[name]
