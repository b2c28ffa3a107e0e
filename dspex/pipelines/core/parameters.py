"""Read a function's parameters and take its arguments from the state; predicates for conditions.

A parameter's name is what it reads; one with a default is optional; `**state` is everything (P1).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidInput, SettingsError, UnknownName
from .dataflow import Reads
from .snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Parameters:
    """A function's parameters, read once."""

    function: Callable[..., Any]
    label: str
    positional: tuple[str, ...]  # those that cannot be given by name
    named: tuple[str, ...]
    required: frozenset[str]
    takes_rest: bool

    @classmethod
    def of(cls, function: Callable[..., Any], label: str) -> Parameters:
        """Read a function's parameters.

        Raises:
            SettingsError: the function does not say what it takes.
        """
        try:
            found = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise SettingsError(
                f"What {label} takes cannot be read from it. Wrap it in a function whose parameters are the names of "
                f"what it reads: dspex.native(lambda text: {label}(text), into=...)."
            ) from None
        return cls(
            function,
            label,
            tuple(p.name for p in found if p.kind is p.POSITIONAL_ONLY),
            tuple(p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)),
            frozenset(
                p.name for p in found if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            ),
            any(p.kind is p.VAR_KEYWORD for p in found),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.positional, *self.named)

    def reads(self, given: Mapping[str, Any]) -> Reads:
        """Return what the function reads of the state; the options `given` need not come from there."""
        names = frozenset(self.names) - given.keys()
        required = names & self.required
        return Reads(required, names - required, self.takes_rest)

    def check_options(self, given: Mapping[str, Any], *, first: int = 0) -> None:
        """Refuse options that it does not take; the `first` parameters are no options.

        Raises:
            UnknownName: it lists those that it takes.
        """
        known = self.names[first:]
        for name in given:
            if name not in known and not self.takes_rest:
                raise UnknownName("option", name, known, where=self.label)

    def bound(self, state: Mapping[str, Any], given: Mapping[str, Any], reader: str) -> Callable[[], Any]:
        """Return the call with its arguments; `reader` names the step in errors.

        Raises:
            InvalidInput: the state lacks something.
        """
        values = Snapshot(state)
        arguments = {name: given[name] if name in given else values[name] for name in self._there(state, given, reader)}
        if self.takes_rest:
            arguments.update({name: values[name] for name in state if name not in arguments})
            arguments.update(given)
        positional = [arguments.pop(name) for name in self.positional if name in arguments]
        return functools.partial(self.function, *positional, **arguments)

    def _there(self, state: Mapping[str, Any], given: Mapping[str, Any], reader: str) -> list[str]:
        found = [name for name in self.names if name in given or name in state]
        for name in self.required:
            if name not in given and name not in state:
                raise missing(name, reader, state)
        return found


@dataclass(frozen=True, slots=True)
class Condition:
    """A predicate of the state."""

    parameters: Parameters

    @classmethod
    def of(cls, given: Any) -> Condition:
        """Return the condition of a predicate, or of the name of a value that must be there and true.

        Raises:
            SettingsError: it is neither.
        """
        if isinstance(given, str):
            return cls(
                Parameters(lambda **state: state.get(given), f"when={given!r}", (), (given,), frozenset(), False)
            )
        if not callable(given):
            raise SettingsError(
                f"A condition is a function of the state, such as lambda score: score < 0.5, or a name, not a "
                f"{type(given).__name__}.",
                key="when",
            )
        return cls(Parameters.of(given, getattr(given, "__name__", "the condition")))

    @property
    def reads(self) -> Reads:
        return self.parameters.reads({})

    def bound(self, state: Mapping[str, Any], reader: str) -> Callable[[], Any]:
        return self.parameters.bound(state, {}, reader)


def missing(name: str, label: str, state: Mapping[str, Any]) -> InvalidInput:
    """Return the error for a value that a step reads and nothing has given."""
    import difflib

    near = difflib.get_close_matches(name, list(state), n=3, cutoff=0.5)
    hint = (
        f"Did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"There is {', '.join(map(repr, state)) or 'nothing'}."
    )
    return InvalidInput(f"Step {label!r} reads {name!r}, which neither the inputs nor a step gave. {hint}", field=name)
