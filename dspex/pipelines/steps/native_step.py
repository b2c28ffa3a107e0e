"""Run functions and classes of the host as steps, in this process.

Runs on the calling thread in `run` (in one beside it where a deadline applies), and in a thread of its own in `arun`;
async functions run on the caller's event loop in `arun` and on the pipeline's private one in `run`.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...errors import InvalidReturn, SettingsError
from ..core.dataflow import Flow, Reads, Writes
from ..core.parameters import Parameters
from ..core.snapshots import Snapshot
from ..core.step import Step, StepJob, StepOutput, names_of

_PLAIN = (str, int, float, bool, bytes, list, tuple, set, frozenset)


def function_step(
    what: Any, options: Mapping[str, Any], writes: Sequence[str] | str | None, **common: Any
) -> NativeStep:
    """Return the step for a function, or for a class or an object with `run(state, **options)`.

    Raises:
        SettingsError, UnknownName: it could never run.
    """
    if inspect.isclass(what) or (not callable(what) and hasattr(what, "run")):
        function, first = _run_method(what), 1
    elif callable(what):
        function, first = what, 0
    else:
        kind = type(what).__name__
        raise SettingsError(f"dspex.native takes a function, a class with run(), or a signature, not a {kind}.")
    label = getattr(what, "__name__", type(what).__name__)
    parameters = Parameters.of(function, "step" if label == "<lambda>" else label)
    parameters.check_options(options, first=first)
    declared = _declared(function) if writes is None else Writes.of(names_of(writes, "writes"))
    return NativeStep(
        parameters=parameters,
        takes_state=first == 1,
        options=options,
        declared=declared,
        result=_hint(function),
        **common,
    )


@dataclass(frozen=True, kw_only=True)
class NativeStep(Step):
    """A step that calls a function of the host."""

    kind: ClassVar[str] = "native"

    parameters: Parameters
    takes_state: bool = False  # `run(state, **options)` instead of parameters by name
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: Writes | None = None
    result: Any = None  # the return annotation

    @property
    def default_name(self) -> str:
        return self.parameters.label

    def _own_flow(self) -> Flow:
        reads = Reads(is_everything=True) if self.takes_state else self.parameters.reads(self.options)
        if self.into is not None:
            return Flow(reads, Writes.of((self.into, *self.keep)))
        if self.result is type(None):
            return Flow(reads, Writes())
        return Flow(reads, (self.declared or Writes(is_open=True)) | Writes.of(self.keep))

    def check(self, *, is_collected: bool) -> None:
        if self.into is None and self.declared is None and not is_collected and _never_has_names(self.result):
            raise SettingsError(
                f"The step {self.name or self.default_name!r} returns {_shown(self.result)}, which has no names for "
                f"the state: give into='...', or return a dict and give writes=[...].",
                key="into",
            )

    async def perform(self, job: StepJob) -> StepOutput:
        if self.takes_state:
            call = functools.partial(self.parameters.function, Snapshot(job.state), **self.options)
        else:
            call = self.parameters.bound(job.state, self.options, job.node.name)  # type: ignore[assignment]
        value = await job.driver.call(call, job.deadline)
        if self.into is not None or (job.node.is_collected and self.declared is None):
            return StepOutput(value, extra=_items(value))
        writes, extra = self._named(value, job.node.name)
        return StepOutput(value, writes, extra=extra)

    def _named(self, value: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the items to write, and the others."""
        if value is None and self.declared is None:
            return {}, {}
        if not isinstance(value, Mapping):
            raise InvalidReturn(
                f"The step {name!r} returned a {type(value).__name__}, which has no names for the state: give "
                f"into='...', or return a dict and give writes=[...]."
            )
        items = dict(value)
        if bad := [key for key in items if not isinstance(key, str)]:
            raise InvalidReturn(f"The step {name!r} returned a dict with the key {bad[0]!r}; names are str.")
        if self.declared is None:
            return items, {}
        if lacking := sorted(self.declared.certain - items.keys()):
            raise InvalidReturn(
                f"The step {name!r} declares to write {', '.join(map(repr, lacking))} and did not return it; it "
                f"returned {', '.join(map(repr, items)) or 'nothing'}."
            )
        written = {key: items.pop(key) for key in tuple(items) if key in self.declared.possible}
        return written, items


def _run_method(what: Any) -> Callable[..., Any]:
    if not hasattr(what, "run"):
        raise SettingsError(f"The class {what.__name__} has no run(state, **options); give a function of it instead.")
    if not inspect.isclass(what):
        return typing.cast(Callable[..., Any], what.run)
    if isinstance(inspect.getattr_static(what, "run"), staticmethod | classmethod):
        return typing.cast(Callable[..., Any], what.run)  # type: ignore[attr-defined]
    try:
        made: Any = what()
        return typing.cast(Callable[..., Any], made.run)
    except TypeError as error:
        raise SettingsError(
            f"The class {what.__name__} cannot be made without arguments ({error}): give an object of it."
        ) from error


def _hint(function: Any) -> Any:
    """Return the return annotation; None where there is none, or it cannot be resolved here."""
    function = getattr(function, "func", function)
    if not inspect.isroutine(function):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - its annotations are wanted
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that exist for the type checker only; any code may run in an annotation
        return None
    return hints.get("return")


def _declared(function: Any) -> Writes | None:
    """Return what a TypedDict as the return type declares."""
    hint = _hint(function)
    if hint is None or not typing.is_typeddict(hint):
        return None
    # Not `__required_keys__`: with postponed annotations it takes NotRequired fields for required ones (PEP 655).
    fields = typing.get_type_hints(hint, include_extras=True)
    maybe = {name for name, kind in fields.items() if _may_lack(kind, hint.__total__)}
    return Writes.of(fields.keys() - maybe, maybe)


def _may_lack(kind: Any, is_total: bool) -> bool:
    origin = typing.get_origin(kind)
    return origin is typing.NotRequired or (not is_total and origin is not typing.Required)


def _never_has_names(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return all(_never_has_names(part) for part in typing.get_args(hint))
    return inspect.isclass(origin) and issubclass(origin, _PLAIN) and not issubclass(origin, collections.abc.Mapping)


def _items(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint)
