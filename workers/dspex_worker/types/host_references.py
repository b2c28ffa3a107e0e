"""What the host's pickles refer to and each worker resolves: DSPy's types, the host's tools, classes that were sent.

The host pickles calls of these functions and never makes them; a worker makes them while it reads, and resolves them
for the call that it reads for. Nothing here imports DSPy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol


class References(Protocol):
    """Resolves references, for one call in one worker."""

    def dspy_type(self, name: str) -> Any: ...
    def host_tool(self, descriptor: Mapping[str, Any]) -> Any: ...
    def sent_code(self, name: str, label: str) -> Any: ...
    def complete_later(self, model: Any) -> None: ...


_references: ContextVar[References] = ContextVar("dspex_references")


@contextlib.contextmanager
def resolved_by(references: References) -> Generator[None]:
    """Let these resolve what is read in the block."""
    token = _references.set(references)
    try:
        yield
    finally:
        _references.reset(token)


def dspy_type(name: str) -> Any:
    """Return DSPy's class of that name, such as "Image" or "Code['java']"."""
    return _references.get().dspy_type(name)


def dspy_record(name: str, fields: Mapping[str, Any], input_keys: list[str] | None = None) -> Any:
    """Return a `dspy.Prediction` or `dspy.Example` of these fields."""
    made = dspy_type(name)(fields)
    return made if input_keys is None else made.with_inputs(*input_keys)


def host_tool(descriptor: Mapping[str, Any]) -> Any:
    """Return DSPy's tool for one of the host's, which is called there."""
    return _references.get().host_tool(descriptor)


def sent_code(name: str, label: str) -> Any:
    """Return a class that the host sent by value."""
    return _references.get().sent_code(name, label)


def set_members(model: Any, state: tuple[Mapping[str, Any], Any]) -> Any:
    """Give a model of pydantic's its members; its validators are made when everything was read."""
    for name, member in state[0].items():
        if name != "_abc_impl":
            setattr(model, name, member)
    _references.get().complete_later(model)
    return model
