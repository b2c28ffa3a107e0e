"""`EvaluationRow`: what came of one example of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Usage = Mapping[str, Mapping[str, Any]]  # {model: {"prompt_tokens": ..., ...}}


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """What came of one example. A row with an `error` (the program's or the metric's) counts as 0, as in DSPy.

    `example` is what the metric got, `prediction` what the program returned, None if it failed. `seconds` is the
    program's wall time, `usage` what it asked of language models, failed attempts included.
    """

    index: int
    example: Any
    prediction: Any = None
    score: float = 0.0
    error: BaseException | None = None
    seconds: float = 0.0
    usage: Usage = field(default_factory=dict)
    route: str = ""
    feedback: str | None = None  # of a metric that gives some, as GEPA's do


def same_example(one: Any, other: Any) -> bool:
    """Whether two examples have the same fields; values that cannot be compared (arrays) are taken to be the same."""
    mine, theirs = fields_of(one), fields_of(other)
    if mine.keys() != theirs.keys():
        return False
    return all(_same(mine[name], theirs[name]) for name in mine)


def fields_of(what: Any) -> dict[str, Any]:
    """Return the fields of an example or prediction; of a plain value, the value alone."""
    if hasattr(what, "items"):
        return dict(what.items())
    return {name: what[name] for name in what.keys()} if hasattr(what, "keys") else {"value": what}  # noqa: SIM118


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (ValueError, TypeError):
        return True
