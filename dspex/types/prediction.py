"""`Prediction`: what a program returns, on either route."""

from __future__ import annotations

import difflib
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, cast

from .call_trace import NO_TRACE, Trace

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .logprobs import Logprobs
    from .trace_step import TraceStep

    S_co = TypeVar("S_co", default=Any, covariant=True)  # a bare `Prediction` is a `Prediction[Any]`
else:
    from typing import TypeVar  # no default before Python 3.13

    S_co = TypeVar("S_co", covariant=True)

_SHOWN = 200


class Prediction(Generic[S_co]):
    """The outputs of one call, as attributes and as items; immutable.

    A program of `class QA(dspex.Signature)` gives a `Prediction[QA]`. Type checkers see `out.answer` as `Any`, as they
    must where attributes come from data; they see `out.typed.answer` with the type that QA declares, and refuse
    `out.typed.anwser`. Both are the same value. Of a signature that is a string everything is `Any`.

    `usage` is {model: {"prompt_tokens": ..., ...}} summed over the requests, empty for a cached answer. `cached`
    says that no request was sent. `cost_usd` is 0.0 for what was cached, None where a price is unknown. `route` is
    "native" or "python:<pool>/<worker>". `completions` holds the outputs of every generation (n of them; the first is
    this prediction).

    `finish_reason` says why the model stopped, in its last answer: "stop", "length" (it was cut at max_tokens),
    "tool_call", "content_filter", or the provider's own word where DSPy has none. `logprobs` are those of its tokens
    (`out.logprobs.content[0].token`) if `logprobs=True` asked for them, else None; those of several answers are in
    `all_logprobs`. `trace` holds a step for each call of a predictor, in the order in which they ended, if
    `using(trace=True)` asked for it; `trace.save("trace.json")` writes a file for Perfetto.
    """

    __slots__ = (
        "_values",
        "all_logprobs",
        "cached",
        "completions",
        "cost_usd",
        "finish_reason",
        "route",
        "trace",
        "usage",
    )

    _values: Mapping[str, Any]
    all_logprobs: Sequence[Logprobs]
    cached: bool
    completions: Sequence[Mapping[str, Any]]
    cost_usd: float | None
    finish_reason: str
    route: str
    trace: Trace
    usage: Mapping[str, Mapping[str, Any]]

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        completions: Sequence[Mapping[str, Any]] = (),
        usage: Mapping[str, Mapping[str, Any]] | None = None,
        cached: bool = False,
        cost_usd: float | None = None,
        route: str = "native",
        finish_reason: str = "",
        trace: Sequence[TraceStep] = (),
        logprobs: Sequence[Logprobs] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "_values", dict(values))
        put(self, "completions", tuple(completions) or (MappingProxyType(self._values),))
        put(self, "usage", usage or {})
        put(self, "cached", cached)
        put(self, "cost_usd", cost_usd)
        put(self, "route", route)
        put(self, "finish_reason", finish_reason)
        put(self, "trace", Trace(trace) if trace else NO_TRACE)
        put(self, "all_logprobs", tuple(logprobs))

    def __getattr__(self, name: str) -> Any:
        # Only for names that are no attribute: a field called `usage` is read as out["usage"].
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"The prediction has no {name!r}. {_near(name, self._values)}") from None

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise KeyError(f"The prediction has no {name!r}. {_near(name, self._values)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def logprobs(self) -> Logprobs | None:
        """The log probabilities of the first answer's tokens; an output of that name goes before them."""
        if "logprobs" in self._values:
            return cast("Logprobs", self._values["logprobs"])
        return self.all_logprobs[0] if self.all_logprobs else None

    @property
    def typed(self) -> S_co:
        """The prediction itself; for type checkers, the signature that it was made from, with its fields' types."""
        return cast(S_co, self)

    def keys(self) -> KeysView[str]:
        """Return the names of the outputs, in the signature's order."""
        return self._values.keys()

    def values(self) -> ValuesView[Any]:
        """Return the outputs, in the same order."""
        return self._values.values()

    def items(self) -> ItemsView[str, Any]:
        """Return the pairs of both."""
        return self._values.items()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the output of that name, or the default."""
        return self._values.get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """Return a new dict of the outputs."""
        return dict(self._values)

    def toDict(self) -> dict[str, Any]:
        """`to_dict`, by the name that DSPy's metrics use."""
        return dict(self._values)

    def __eq__(self, other: object) -> bool:
        """Equal outputs; usage, route and caching say nothing about the answer."""
        return self._values == other._values if isinstance(other, Prediction) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # outputs may be lists

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_short(value)}" for name, value in self._values.items())
        return f"Prediction({shown})"

    def _repr_html_(self) -> str:
        from .. import html_views  # at first need: notebooks alone show it

        return html_views.table(self._values.items(), title="Prediction", note=self._origin())

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:
        yield from self._values.items()

    def _origin(self) -> str:
        """Return where it comes from, in a line."""
        tokens = sum(counts.get("total_tokens") or 0 for counts in self.usage.values())
        cost = "" if self.cost_usd is None else f", {self.cost_usd:.6f} USD"
        spent = "from the cache" if self.cached else f"{tokens:,} tokens{cost}"
        cut = ", cut at length" if self.finish_reason == "length" else ""
        return f"{self.route}, {spent}{cut}"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A prediction is immutable; {name!r} cannot be set.")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (
            dict(self._values),
            [dict(each) for each in self.completions],
            dict(self.usage),
            self.cached,
            self.cost_usd,
            self.route,
            self.finish_reason,
            self.trace,
            tuple(self.all_logprobs),
        )


def with_facts(prediction: Prediction[S_co], values: Mapping[str, Any] | None = None, **facts: Any) -> Prediction[S_co]:
    """Return the same outputs, or these, with the facts of how they came about: its own where none is given."""
    names = ("completions", "usage", "cached", "cost_usd", "route", "finish_reason", "trace")
    known = {name: getattr(prediction, name) for name in names}
    known["logprobs"] = prediction.all_logprobs
    return Prediction(prediction.to_dict() if values is None else values, **{**known, **facts})


def _rebuilt(
    values: Any,
    completions: Any,
    usage: Any,
    cached: bool,
    cost_usd: float | None,
    route: str,
    finish_reason: str = "",
    trace: Any = (),
    logprobs: Any = (),
) -> Prediction:
    return Prediction(
        values,
        completions=completions,
        usage=usage,
        cached=cached,
        cost_usd=cost_usd,
        route=route,
        finish_reason=finish_reason,
        trace=trace,
        logprobs=logprobs,
    )


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return f"It has {', '.join(map(repr, known)) or 'no outputs'}."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
