"""Tools as values of a signature: functions that a model may call.

`Tool` has the fields, schemas and prompt form of its DSPy namesake (dspy/adapters/types/tool.py, 3.4.1). Tools run in
this process, in the caller's thread. How adapters offer them to a model is `adapters/tool_calling.py`'s.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, ClassVar

import pydantic
import pydantic_core

from ..errors import InvalidInput, SettingsError, UnknownName
from . import mcp_tools
from .custom_type import DspyType
from .mcp_tools import ResultMode


class Tool(DspyType):
    """A function that a model may call: `Tool(function)`; its name, text and argument schemas may be given.

    `args` is {argument: JSON schema}; all of it is derived from the function as DSPy derives it, docstring included.

    Raises:
        SettingsError: a lambda without a name, `*args`, or an argument without a JSON schema.
    """

    dspy_name: ClassVar[str] = "dspy.Tool"
    model_config = pydantic.ConfigDict(frozen=True)
    func: Callable[..., Any]
    name: str
    desc: str | None  # None, and null on the wire, for a function without a docstring
    args: dict[str, Any]
    arg_types: dict[str, Any]
    has_kwargs: bool = False

    def __init__(
        self,
        func: Callable[..., Any],
        name: str | None = None,
        desc: str | None = None,
        args: dict[str, Any] | None = None,
        arg_types: dict[str, Any] | None = None,
        arg_desc: dict[str, str] | None = None,
        **_: Any,
    ) -> None:
        found = _FunctionFacts(func, arg_desc or {}, needs_schemas=args is None)
        members: dict[str, Any] = {
            "func": func,
            "name": name or found.name,
            "desc": desc or found.desc,
            "args": found.args if args is None else args,
            "arg_types": found.arg_types if arg_types is None else arg_types,
            "has_kwargs": found.has_kwargs,
        }
        super().__init__(**members)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # A plain function is taken for its tool; a `before` validator cannot, where `__init__` is the class's own.
        def tool_of(value: Any) -> Any:
            return cls(value) if callable(value) and not isinstance(value, cls) else value

        return pydantic_core.core_schema.no_info_before_validator_function(tool_of, handler(source))

    def __call__(self, **arguments: Any) -> Any:
        """Return the function's result for these arguments, which are checked and given their types first.

        Raises:
            InvalidInput: arguments that do not fit, or an async function (use `acall`).
        """
        if inspect.iscoroutinefunction(self.func):
            raise InvalidInput(f"The tool {self.name!r} is asynchronous: use await tool.acall(...).")
        return self.func(**self.typed(arguments))

    async def acall(self, **arguments: Any) -> Any:
        """`__call__`, awaited where the function is asynchronous."""
        given = self.func(**self.typed(arguments))
        return await given if inspect.isawaitable(given) else given

    @classmethod
    def from_mcp_tool(cls, session: Any, tool: Any, *, result_mode: ResultMode = "text") -> Tool:
        """Return a tool that an MCP server offers; `session` is the client's, `tool` one of its `list_tools()`.

        Calls are made in the event loop that this is called in, where the session was opened: await the programs that
        use it (`acall`), since a loop that waits for a blocking call can carry no tool's. "text" gives a call's texts,
        "structured" its structured content where it has some.

        Raises:
            ValueError: another result_mode.
            SettingsError: the schema of an argument refers to itself.
        """
        if result_mode not in ("text", "structured"):
            raise ValueError(f"Unsupported MCP result mode: {result_mode!r}")
        try:
            args, arg_types = mcp_tools.arguments_of(tool)
        except RecursionError:
            raise SettingsError(f"The schema of the MCP tool {tool.name!r} refers to itself.", key="tools") from None
        caller = mcp_tools.caller_of(session, tool.name, result_mode)
        return cls(caller, name=tool.name, desc=tool.description, args=args, arg_types=arg_types)

    def typed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments under the function's own types.

        Raises:
            InvalidInput: an argument does not fit; `field` names it.
        """
        return {name: self._typed(name, value) for name, value in arguments.items()}

    def as_function(self) -> dict[str, Any]:
        """Return the tool as a request's `tools` holds it (the form of OpenAI's function calling)."""
        required = [name for name, schema in self.args.items() if "default" not in schema]
        parameters = {"type": "object", "properties": self.args, "required": required}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.desc, "parameters": parameters},
        }

    def format(self) -> str:
        return str(self)

    def to_wire(self) -> dict[str, Any]:
        return {"name": self.name, "desc": self.desc, "args": self.args, "has_kwargs": self.has_kwargs}

    def __str__(self) -> str:
        about = f", whose description is <desc>{self.desc}</desc>.".replace("\n", "  ") if self.desc else "."
        return f"{self.name}{about} It takes arguments {self.args}."

    def __repr__(self) -> str:
        return f"Tool(name={self.name}, desc={self.desc}, args={self.args})"

    def _typed(self, name: str, value: Any) -> Any:
        if name not in self.args and not self.has_kwargs:
            raise InvalidInput(str(UnknownName("argument", name, self.args, where=f"tool {self.name!r}")), field=name)
        kind = self.arg_types.get(name, Any)
        if kind is Any:
            return value
        try:
            return pydantic.TypeAdapter(kind).validate_python(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise InvalidInput(
                f"The argument {name!r} of tool {self.name!r} does not fit its type: {first['type']}.", field=name
            ) from error


class _FunctionFacts:
    """The name, text and argument schemas of a function, for a model."""

    def __init__(self, func: Any, arg_desc: Mapping[str, str], *, needs_schemas: bool) -> None:
        if not callable(func):
            raise SettingsError(f"A tool is a callable, not {type(func).__name__}.", key="tools")
        target = func if inspect.isfunction(func) or inspect.ismethod(func) else func.__call__
        self.name = getattr(func, "__name__", type(func).__name__)
        self.desc = getattr(func, "__doc__", None) or getattr(target, "__doc__", None)  # as it is, as in DSPy
        self.args: dict[str, Any] = {}
        self.arg_types: dict[str, Any] = {}
        self.has_kwargs = False
        hints = _hints(target)
        for name, parameter in inspect.signature(target).parameters.items():
            self.has_kwargs = self.has_kwargs or parameter.kind is parameter.VAR_KEYWORD
            if parameter.kind is parameter.VAR_POSITIONAL:
                raise SettingsError(f"Tool {func!r} takes *{name}; a model can only name arguments.", key="tools")
            self.arg_types[name] = hints.get(name, Any)
            if needs_schemas:
                self.args[name] = _schema(func, name, parameter, self.arg_types[name])
                if name in arg_desc:
                    self.args[name]["description"] = arg_desc[name]


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _schema(func: Any, name: str, parameter: inspect.Parameter, hint: Any) -> dict[str, Any]:
    try:
        schema = _without_references(pydantic.TypeAdapter(hint).json_schema())
    except (pydantic.PydanticSchemaGenerationError, pydantic.errors.PydanticInvalidForJsonSchema):
        raise SettingsError(f"The argument {name!r} of tool {func!r} has no JSON schema.", key="tools") from None
    except RecursionError:
        raise SettingsError(
            f"The type of the argument {name!r} of tool {func!r} refers to itself: its schema has no end.", key="tools"
        ) from None
    if parameter.default is not parameter.empty:
        schema["default"] = _plain_default(parameter.default)
    return schema


def _without_references(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with every `$ref` replaced by what it names."""
    definitions = schema.get("$defs")
    if definitions is None:
        return schema

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolved(definitions[part["$ref"].split("/")[-1]])
        return {key: resolved(item) for key, item in part.items() if key != "$defs"}

    made: dict[str, Any] = resolved(schema)
    return made


def _plain_default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)  # a JSON number, where pydantic would give a text
    try:
        return pydantic_core.to_jsonable_python(value)
    except pydantic_core.PydanticSerializationError:
        return value
