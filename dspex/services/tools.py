"""Run the tools that workers ask for: Python functions of this process, which never run in the worker.

What a tool is, and what a model sees of it, is in `types/tool.py`. What a tool returns is sent as what
it is to workers of this process's own calls, and as plain data to others.
"""

from __future__ import annotations

import contextlib
import inspect
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ..adapters.plain_data import is_plain, to_wire
from ..errors import EncodeError, InvalidInput, MissingDependency, SettingsError, UnknownName
from ..types.dspy_objects import value_here
from .caller_loop import loop_of
from .code import carried_value
from .registry import Registry

if TYPE_CHECKING:
    from ..pools.callbacks import Callback
    from ..types.tool import Tool

_NONE = nullcontext()  # most calls have no tools


class ToolSets:
    """The tools that calls of this supervisor may use, by the id that their specs or inputs carry."""

    def __init__(self) -> None:
        self._sets: Registry[dict[str, Tool]] = Registry()

    def registered(self, id: str, tools: Sequence[Tool]) -> AbstractContextManager[None]:
        """Let workers call these tools for the time of the block."""
        return self._sets.registered(id, {tool.name: tool for tool in tools}) if tools else _NONE

    def call(self, request: Callback) -> Any:
        """Answer a "tool.call": run the function with the arguments that the model gave."""
        request.require(id=str, name=str, arguments=dict)
        arguments = request.arguments
        tools = self._sets.get(arguments["id"]) or {}
        tool = tools.get(arguments["name"])
        if tool is None:
            raise UnknownName("tool", arguments["name"], tools)
        result = tool.func(**tool.typed(arguments["arguments"]))
        if inspect.isawaitable(result):
            result = _await(result, request)
        return _reply(result, f"the result of tool {tool.name!r}", by_value=request.outer.is_trusted)


def _reply(result: Any, label: str, *, by_value: bool) -> dict[str, Any]:
    """Return a result as a worker reads it: a tuple, a model or an enum as what it is, where that can be sent.

    Raises:
        EncodeError: it has no form as data, by which a trajectory that holds it comes back.
    """
    plain = to_wire(result, label)
    if by_value and not is_plain(result):
        with contextlib.suppress(EncodeError, MissingDependency):  # a lock in it, or a language model
            return {"carried": carried_value(result, label)}
    return {"value": plain}


def new_set_id() -> str:
    """Return an id for a program's tools that another client cannot guess."""
    return secrets.token_hex(8)


def specs_of(tools: Sequence[Tool], id: str) -> list[dict[str, Any]]:
    """Return what a worker needs to show the tools to a model and to ask for them."""
    return [{"id": id, **tool.to_wire()} for tool in tools]


def named(tools: Iterable[Any]) -> tuple[Tool, ...]:
    """Return the tools for these functions.

    Raises:
        SettingsError: it is no list of functions, two have one name, or one has none.
    """
    if isinstance(tools, str) or not isinstance(tools, Iterable):
        raise SettingsError(f"tools is a list of functions, not a {type(tools).__name__}.", key="tools")
    made = tuple(_tool_of(tool) for tool in tools)
    names = [tool.name for tool in made]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"Two tools are called {name!r}; a model could not tell them apart.", key="tools")
    return made


def tools_among(value: Any) -> tuple[Tool, ...]:
    """Return the tools in the values of a call's inputs, at any depth."""
    if getattr(type(value), "dspy_name", "") == "dspy.Tool":
        return (value,)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return tuple(tool for part in parts for tool in tools_among(part))


def _tool_of(function: Any) -> Tool:
    from ..types.tool import Tool

    function = value_here(function)
    if isinstance(function, Tool):
        return function
    if not callable(function) and callable(getattr(function, "search", None)):
        function = function.search  # an index
    if not callable(function):
        raise SettingsError(f"A tool is a function or a dspex.Tool, not {function!r}.", key="tools")
    if getattr(function, "__name__", "") == "<lambda>":
        raise SettingsError("A tool needs a name that the model can use: give a def, not a lambda.", key="tools")
    return Tool(function)


def _await(awaitable: Any, request: Callback) -> Any:
    """Run a coroutine of an async tool on the caller's loop if it has one, else on one of its own (C14)."""
    import asyncio

    loop = loop_of(request)
    if loop is not None:
        return asyncio.run_coroutine_threadsafe(awaitable, loop).result()
    if not inspect.iscoroutine(awaitable):
        raise InvalidInput("An async tool must be a coroutine function.")
    return asyncio.run(awaitable)
