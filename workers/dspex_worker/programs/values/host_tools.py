"""Make DSPy tools of the host's.

A tool's descriptor carries what DSPy would have read from the function (name, description, JSON schema of each
argument), so prompts and native function calls come out the same; calling it is a callback. Any of its threads.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import dspy

from ...failure import Failure
from ..calls.call_context import running
from ..dspy_errors import invalid_input
from .dspy_references import DspyReferences, value_from
from .wire_values import to_wire

_DESCRIPTOR = {"name", "desc", "args", "has_kwargs"}  # what stands for a tool among a call's inputs


def tools_from(descriptors: Iterable[Mapping[str, Any]]) -> list[dspy.Tool]:
    """Return DSPy's tools for these descriptors ({"id", "name", "desc", "args"})."""
    return [_tool(descriptor) for descriptor in descriptors]


def tools_in(value: Any, tool_set: str | None) -> Any:
    """Return the value of an input whose type names Tool, with DSPy's tools in place of their descriptors."""
    if isinstance(value, Mapping):
        if set(value) == _DESCRIPTOR:
            return _tool({**value, "id": tool_set})
        return {key: tools_in(item, tool_set) for key, item in value.items()}
    return [tools_in(item, tool_set) for item in value] if isinstance(value, list) else value


def names_tools(annotation: Any) -> bool:
    """Return whether a type holds Tool, at any depth."""
    return annotation is dspy.Tool or any(map(names_tools, get_args(annotation)))


def _tool(descriptor: Mapping[str, Any]) -> dspy.Tool:
    tool_set, name = descriptor["id"], str(descriptor["name"])

    def call(**arguments: Any) -> Any:
        sent = {"id": tool_set, "name": name, "arguments": to_wire(arguments)}
        try:
            return _result(name, running().call_parent("tool.call", sent))
        except Failure as failure:
            raise _as_raised(failure) from None

    tool = dspy.Tool(
        call, name=name, desc=descriptor.get("desc"), args=dict(descriptor.get("args") or {}), arg_types={}
    )
    # Our function takes any argument; the one in the parent does not, and DSPy should say so before it is called.
    tool.has_kwargs = bool(descriptor.get("has_kwargs", False))
    return tool


def _result(name: str, reply: Any) -> Any:
    """Return what the tool returned: plain data, or the very object where the host itself made the call."""
    if not (isinstance(reply, Mapping) and set(reply) in ({"value"}, {"carried"})):
        raise invalid_input(f"The host answered the tool {name!r} with a {type(reply).__name__}.")
    if "value" in reply:
        return reply["value"]
    if not running().is_trusted:
        raise invalid_input("Values come as plain data over the control socket, never as Python objects.")
    return value_from(reply["carried"], f"The result of the tool {name!r}", DspyReferences())


def _as_raised(failure: Failure) -> Exception:
    """Return the tool's own exception again, by name: agents show it to the model as an observation."""
    name = str(failure.facts.get("type") or failure.kind).rpartition(".")[2]
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(failure.message)
        except TypeError:
            pass
    return type(name, (Exception,), {"__module__": "builtins"})(failure.message)  # type: ignore[no-any-return]
