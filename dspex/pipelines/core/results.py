"""The result of a run: its state, and a record of each step. Immutable; any thread."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from ...types.call_trace import Trace
from ...types.trace_step import TraceStep

Usage = Mapping[str, Mapping[str, Any]]  # {model: {"prompt_tokens": ..., ...}}
_SHOWN = 200


class Status(StrEnum):
    """How a step ended."""

    DONE = "done"
    SKIPPED = "skipped"  # its `when` said no
    FELL_BACK = "fell back"  # it failed, and its fallback did not
    KEPT = "kept"  # a cache step served what it had written before
    FAILED = "failed"
    CANCELLED = "cancelled"  # a sibling branch failed


@dataclass(frozen=True, slots=True)
class Optimization:
    """How a step's program was optimized: where that ran, and its scores. The program itself may run elsewhere."""

    optimizer: str  # as `dspex.optimize` names it: "miprov2", ...
    pool: str
    worker: str  # such as "mipro/0"
    seconds: float  # wall time, the wait for a free worker included
    score: float | None  # percent
    baseline_score: float | None  # percent, before it
    reused: bool = False  # it was done when this step began: the step's own seconds hold none of it


@dataclass(frozen=True)
class StepRecord:
    """The record of one step. `seconds` is wall time, all attempts and the fallback included."""

    name: str
    index: int
    kind: str
    status: Status
    route: str = ""  # "native", "python:<pool>/<worker>", or "" where nothing ran
    worker: str = ""
    generation: int | None = None
    attempts: int = 0
    reason: str = ""  # why it took this route, was tried again, skipped, or fell back
    seconds: float = 0.0
    usage: Usage = field(default_factory=dict)
    cost_usd: float | None = 0.0  # all attempts and what a function of the user's asked too; None: a price is unknown
    cached: bool = False
    optimized: Optimization | None = None  # of an optimizer's step: where its program was made; `route` is where it ran
    extra: Mapping[str, Any] = field(default_factory=dict)  # reasoning, trajectory, and what else is not in the state
    wrote: tuple[str, ...] = ()
    overwrote: tuple[str, ...] = ()  # names that an earlier step, or the inputs, had given (P3)
    errors: tuple[BaseException, ...] = ()  # of the attempts that failed
    children: Steps = field(default_factory=lambda: Steps(()))
    began: float = 0.0  # on `time.time()`'s clock; 0.0 where nothing ran

    def __getitem__(self, name: str) -> Any:
        """Return an item of `extra`."""
        try:
            return self.extra[name]
        except KeyError:
            raise KeyError(f"Step {self.name!r} has no {name!r}. {_near(name, self.extra)}") from None


class Steps(Sequence[StepRecord]):
    """Records in the steps' order, by index or by name; a name is also found among the children of composite steps."""

    __slots__ = ("_records",)

    def __init__(self, records: Sequence[StepRecord]) -> None:
        self._records = tuple(records)

    def __getitem__(self, which: Any) -> Any:
        if not isinstance(which, str):
            return self._records[which]
        for record in self.flat():
            if record.name == which:
                return record
        raise KeyError(f"No step is called {which!r}. {_near(which, [record.name for record in self.flat()])}")

    def __len__(self) -> int:
        return len(self._records)

    def flat(self) -> Iterator[StepRecord]:
        """Yield each record, followed by its children."""
        for record in self._records:
            yield record
            yield from record.children.flat()

    def __repr__(self) -> str:
        shown = ", ".join(f"{record.name}: {record.status.value}" for record in self._records)
        return f"<steps {shown}>"


class Result:
    """The result of a run: `result["answer"]` or `result.answer`, the whole `state`, and the `steps`.

    `cost_usd` is of everything that the run asked of language models, None where a price is unknown.
    """

    __slots__ = ("_state", "cost_usd", "seconds", "session", "state", "steps", "usage")

    _state: dict[str, Any]
    state: Mapping[str, Any]
    steps: Steps
    usage: Usage
    cost_usd: float | None
    seconds: float
    session: str

    def __init__(
        self,
        state: Mapping[str, Any],
        steps: Steps,
        *,
        seconds: float,
        session: str,
        cost_usd: float | None = 0.0,
    ) -> None:
        put = object.__setattr__
        put(self, "_state", dict(state))
        put(self, "state", MappingProxyType(self._state))
        put(self, "steps", steps)
        put(self, "usage", summed(record.usage for record in steps))
        put(self, "cost_usd", cost_usd)
        put(self, "seconds", seconds)
        put(self, "session", session)

    def __getitem__(self, name: str) -> Any:
        try:
            return self._state[name]
        except KeyError:
            raise KeyError(f"The run's state has no {name!r}. {_near(name, self._state)}") from None

    def __getattr__(self, name: str) -> Any:
        # Only for names that are no attribute: a value called `steps` is read as result["steps"].
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._state[name]
        except KeyError:
            raise AttributeError(f"The run's state has no {name!r}. {_near(name, self._state)}") from None

    @property
    def trace(self) -> Trace:
        """The steps that ran, composite ones before theirs; `trace.save("trace.json")` writes a file for Perfetto."""
        ran = [record for record in self.steps.flat() if record.began]
        return Trace(
            TraceStep(
                record.name,
                {},
                {},
                seconds=record.seconds,
                usage=record.usage,
                cached=record.cached,
                error=type(record.errors[-1]).__name__ if record.status is Status.FAILED and record.errors else "",
                began=record.began,
            )
            for record in ran
        )

    def __contains__(self, name: object) -> bool:
        return name in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def keys(self) -> KeysView[str]:
        return self.state.keys()

    def get(self, name: str, default: Any = None) -> Any:
        return self._state.get(name, default)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A result is immutable; {name!r} cannot be set.")

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_short(value)}" for name, value in self._state.items())
        return f"Result({shown})"

    def _repr_html_(self) -> str:
        from ...html_views import grid, table  # at first need: notebooks alone show it

        cost = "" if self.cost_usd is None else f", {self.cost_usd:.6f} USD"
        state = table(self._state.items(), title="Result", note=f"{self.seconds:.2f} s{cost}")
        heads = ("step", "status", "route", "seconds", "reason")
        rows = [(r.name, r.status.value, r.route, f"{r.seconds:.3f}", r.reason) for r in self.steps.flat()]
        return state + grid(heads, rows, title="Steps")

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:
        yield from self._state.items()
        yield "steps", self.steps


def summed(usages: Any) -> dict[str, dict[str, Any]]:
    """Return usages added up, model by model; of what is no number, the last one's."""
    total: dict[str, dict[str, Any]] = {}
    for usage in usages:
        for model, counts in usage.items():
            sums = total.setdefault(model, {})
            for name, value in counts.items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                sums[name] = sums.get(name, 0) + value if is_number else value
    return total


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return f"There is {', '.join(map(repr, known)) or 'nothing'}."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
