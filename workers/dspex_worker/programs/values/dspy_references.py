"""The meaning of DSPy's names in the pickles that the host sends, and how one is read: see `types.host_references`."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

import dspy
from dspy import experimental

from ...types.host_references import resolved_by
from ..dspy_errors import invalid_input
from .host_modules import imported


class DspyReferences:
    """DSPy's types alone: what a value may name that no call prepared."""

    def __init__(self) -> None:
        self._unfinished: list[Any] = []

    def dspy_type(self, name: str) -> Any:
        """Return DSPy's class of that name."""
        if name.startswith("Code["):
            return dspy.Code[name[len("Code['") : -len("']")]]
        plain = name.removeprefix("experimental.")
        found: Any = experimental if plain != name or not hasattr(dspy, name.partition(".")[0]) else dspy
        for part in plain.split("."):
            found = getattr(found, part)
        return found

    def host_tool(self, descriptor: Mapping[str, Any]) -> Any:
        """Refuse one of the host's tools, of which nobody knows how long it may be called."""
        raise invalid_input(f"The value holds the tool {descriptor.get('name')!r}.")

    def sent_code(self, name: str, label: str) -> Any:
        """Refuse a class that would have been sent before."""
        raise invalid_input(f"The value holds {label} by the name {name!r}.")

    def complete_later(self, model: Any) -> None:
        """Keep a model whose validators are to be made."""
        self._unfinished.append(model)

    def complete(self) -> None:
        """Have the validators made of every model that was read: each may hold another."""
        for model in self._unfinished:
            model.model_rebuild(force=True)
        self._unfinished.clear()


class _ValueReader(pickle.Unpickler):
    """Reads one value; modules are looked for where the host looks."""

    def find_class(self, module: str, name: str) -> Any:
        imported(module)
        return super().find_class(module, name)


def value_from(data: bytes, label: str, references: DspyReferences, field: str | None = None) -> Any:
    """Return the value of a pickle that the host itself sent.

    Raises:
        Failure: InvalidInput, when it cannot be read here.
    """
    try:
        with resolved_by(references):
            value = _ValueReader(io.BytesIO(data)).load()
        references.complete()
    except (ImportError, AttributeError) as error:
        raise invalid_input(
            f"{label} cannot be read in the worker: {error}. What it refers to by name must be importable there: "
            f"install it beside the workers, or put it on this process's sys.path.",
            field,
        ) from error
    return value
