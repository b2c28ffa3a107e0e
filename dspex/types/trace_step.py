"""`TraceStep`: one predictor's call inside a program's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One call of one predictor; `name, inputs, outputs = step` unpacks it as an entry of DSPy's trace.

    `began` is on `time.time()`'s clock, 0.0 where it is not known. `seconds` is wall time, with all requests to the
    model that it took. `usage` is {model: counters}, empty where the cache answered (`cached`). `finish_reason` is its
    last answer's. `error` says why it failed; a program may go on. `is_cut` says that inputs and outputs were left out,
    for a trace holds at most 4 MiB of them.
    """

    predictor: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    seconds: float = 0.0
    usage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    finish_reason: str = ""
    cached: bool = False
    error: str = ""
    is_cut: bool = False
    began: float = 0.0

    def __iter__(self) -> Iterator[Any]:
        return iter((self.predictor, self.inputs, self.outputs))
