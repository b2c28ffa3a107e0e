"""Tools of the host: Python functions that an agent in a worker may call. They run here, never in the worker.

A tool's description for the model is derived as DSPy derives it: its name, its docstring, and a JSON schema for each
argument. Whatever a tool returns crosses as plain data.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInput, SettingsError, UnknownName
from .inprocess.crossing import to_wire
from .pools.reverse import ReverseCall


@dataclass(frozen=True, slots=True)
class Tool:
    """A function, and what a model is told of it."""

    function: Callable[..., Any]
    name: str
    desc: str
    args: dict[str, Any]
    has_kwargs: bool

    @classmethod
    def of(cls, function: Any) -> Tool:
        """Give the tool for a function, a callable object or a Tool.

        Raises:
            SettingsError: it is none of them, or has no name.
        """
        if isinstance(function, Tool):
            return function
        if not callable(function):
            raise SettingsError(f"A tool is a callable, not {type(function).__name__}.", key="tools")
        name = getattr(function, "__name__", type(function).__name__)
        if name == "<lambda>":
            raise SettingsError("A tool needs a name that the model can use: give a def, not a lambda.", key="tools")
        desc = getattr(function, "__doc__", None) or ""  # as it is: DSPy shows it so
        args, has_kwargs = _schemas(function)
        return cls(function, name, desc, args, has_kwargs)


class ToolSets:
    """The tools of the programs that use this supervisor, by the id that their specs carry."""

    def __init__(self) -> None:
        self._sets: dict[str, dict[str, Tool]] = {}

    def add(self, id: str, tools: Sequence[Tool]) -> None:
        """Make a set known; the same again does no harm."""
        self._sets.setdefault(id, {tool.name: tool for tool in tools})

    def call(self, request: ReverseCall) -> Any:
        """Answer a "tool.call": run the function with the arguments that the model gave."""
        arguments = request.arguments
        tools = self._sets.get(arguments["id"], {})
        tool = tools.get(arguments["name"])
        if tool is None:
            raise UnknownName("tool", str(arguments["name"]), tools)
        result = tool.function(**arguments["arguments"])
        if inspect.isawaitable(result):
            result = _await(result, request)
        return to_wire(result, f"the result of tool {tool.name!r}")


def new_set_id() -> str:
    """Give an id for a program's tools; it is not to be guessed by another client."""
    return secrets.token_hex(8)


def specs_of(tools: Sequence[Tool], id: str) -> list[dict[str, Any]]:
    """Give what a worker needs to show the tools to a model and to ask for them."""
    return [
        {"id": id, "name": tool.name, "desc": tool.desc, "args": tool.args, "has_kwargs": tool.has_kwargs}
        for tool in tools
    ]


def named(tools: Sequence[Any]) -> tuple[Tool, ...]:
    """Give the tools for these functions.

    Raises:
        SettingsError: two bear one name.
    """
    made = tuple(Tool.of(tool) for tool in tools)
    names = [tool.name for tool in made]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"Two tools are called {name!r}; a model could not tell them apart.", key="tools")
    return made


def _schemas(function: Any) -> tuple[dict[str, Any], bool]:
    from pydantic import PydanticSchemaGenerationError, TypeAdapter

    target = function if inspect.isfunction(function) or inspect.ismethod(function) else function.__call__
    hints = _hints(target)
    schemas: dict[str, Any] = {}
    has_kwargs = False
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            has_kwargs = True
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise SettingsError(f"Tool {function!r} takes *{name}; a model can only name arguments.", key="tools")
        hint = hints.get(name, Any)
        try:
            schema = TypeAdapter(hint).json_schema()
        except PydanticSchemaGenerationError:
            raise SettingsError(
                f"The argument {name!r} of tool {function!r} has no JSON schema.", key="tools"
            ) from None
        if parameter.default is not parameter.empty:
            schema["default"] = to_wire(parameter.default, f"the default of {name!r}")
        schemas[name] = schema
    return schemas, has_kwargs


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _await(awaitable: Any, request: ReverseCall) -> Any:
    """Run a coroutine of an async tool on the caller's loop if it has one, else on one of its own (C14)."""
    loop = request.outer.loop
    if loop is not None and loop.is_running():
        return asyncio.run_coroutine_threadsafe(awaitable, loop).result()
    if not inspect.iscoroutine(awaitable):
        raise InvalidInput("An async tool must be a coroutine function.")
    return asyncio.run(awaitable)
