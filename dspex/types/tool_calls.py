"""Tool calls of a model, and their results, as values of a signature.

`ToolCalls` and `ToolCallResults` have the fields, schemas and prompt forms of their DSPy namesakes
(dspy/adapters/types/tool.py, 3.4.1). A call is executed in this process, in the caller's thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pydantic

from ..errors import InvalidInput, ToolFailed, UnknownName
from .custom_type import DspyType
from .tool import Tool


class ToolCall(DspyType):
    # No docstring: pydantic would put it into the schema that prompts quote.

    id: str | None = None
    name: str
    args: dict[str, Any] = pydantic.Field(json_schema_extra={"additionalProperties": True})

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return _hidden("id", handler.resolve_ref_schema(handler(core_schema)))

    def format(self) -> dict[str, Any]:
        return {"name": self.name, "args": self.args}

    def execute(self, functions: Mapping[str, Callable[..., Any]] | Sequence[Tool]) -> Any:
        """Return the result of the called function: one of `functions`, a mapping of names or a list of tools.

        Raises:
            UnknownName: the model named another function.
            ToolFailed: the function raised, or the arguments are no JSON object.
            InvalidInput: the function is asynchronous (use `aexecute`).
        """
        func = self._function(functions)
        _require_arguments(self.name, self.args)
        if inspect.iscoroutinefunction(func):
            raise InvalidInput(f"The tool {self.name!r} is asynchronous: use await call.aexecute(...).")
        try:
            return func(**self.args)
        except Exception as error:  # the tool is the user's code
            raise ToolFailed(self.name, error) from error

    async def aexecute(self, functions: Mapping[str, Callable[..., Any]] | Sequence[Tool]) -> Any:
        """`execute`, awaited where the function is asynchronous."""
        func = self._function(functions)
        _require_arguments(self.name, self.args)
        try:
            given = func(**self.args)
            return await given if inspect.isawaitable(given) else given
        except Exception as error:  # the tool is the user's code
            raise ToolFailed(self.name, error) from error

    def _function(self, functions: Mapping[str, Callable[..., Any]] | Sequence[Tool]) -> Callable[..., Any]:
        # Never a look-up in the caller's scope, as DSPy's default is: a model would choose what of it is called.
        known = functions if isinstance(functions, Mapping) else {tool.name: tool.func for tool in functions}
        if self.name not in known:
            raise UnknownName("tool", self.name, known)
        return known[self.name]


_Call = ToolCall  # inside ToolCalls the name is its own attribute, as in DSPy


class ToolCalls(DspyType):
    # No docstring: pydantic would put it into the schema that prompts quote.

    dspy_name: ClassVar[str] = "dspy.ToolCalls"
    ToolCall: ClassVar[type[_Call]] = _Call
    tool_calls: list[_Call]
    tool_call_results: Any | None = None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return _hidden("tool_call_results", handler.resolve_ref_schema(handler(core_schema)))

    @classmethod
    def from_dict_list(cls, tool_calls_dicts: Sequence[Mapping[str, Any]]) -> ToolCalls:
        """Return the calls in a list of {"name", "args"}, or of {"id", "function": {"name", "arguments"}}."""
        return cls(tool_calls=[_Call(**_normal(each)) for each in tool_calls_dicts])

    @classmethod
    def description(cls) -> str:
        # The words are DSPy's: they are part of the prompt that this type must give, byte for byte.
        return (
            "Tool calls must be a JSON object with `tool_calls`, a list of calls. Each call must include `name` and "
            '`args`. Example: {"tool_calls": [{"name": "search", "args": {"query": "cats"}}]}'
        )

    def format(self) -> dict[str, Any]:
        return {"tool_calls": [call.format() for call in self.tool_calls]}

    @pydantic.model_serializer()
    def serialize_model(self) -> Any:
        shown = self.format()
        if self.tool_call_results is not None:
            kind: Any = type(self.tool_call_results)
            shown["tool_call_results"] = pydantic.TypeAdapter(kind).dump_python(self.tool_call_results, mode="json")
        return shown

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, list) and all(isinstance(each, dict) and _is_call(each) for each in value):
            return {"tool_calls": [_Call(**_normal(each)) for each in value]}
        if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
            calls = [_Call(**_normal(each)) if isinstance(each, dict) else each for each in value["tool_calls"]]
            return {"tool_calls": calls, **{key: value[key] for key in ("tool_call_results",) if key in value}}
        if isinstance(value, dict) and "tool_calls" not in value and _is_call(value):
            return {"tool_calls": [_Call(**_normal(value))]}
        raise ValueError("tool calls are a list of {'name': ..., 'args': {...}}")


class ToolCallResult(pydantic.BaseModel):
    # No docstring: pydantic would put it into the schema that prompts quote.

    call_id: str | None = None
    name: str
    value: Any
    is_error: bool = False


_Result = ToolCallResult


class ToolCallResults(pydantic.BaseModel):
    # No docstring: pydantic would put it into the schema that prompts quote.

    dspy_name: ClassVar[str] = "dspy.ToolCallResults"
    ToolCallResult: ClassVar[type[_Result]] = _Result
    tool_call_results: list[_Result]

    @classmethod
    def from_tool_calls_and_values(
        cls,
        tool_calls: Sequence[ToolCall] | ToolCalls,
        values: Sequence[Any],
        is_errors: Sequence[bool] | None = None,
    ) -> ToolCallResults:
        """Return the result of each call, in the calls' order.

        Raises:
            InvalidInput: the numbers differ.
        """
        calls = tool_calls.tool_calls if isinstance(tool_calls, ToolCalls) else tool_calls
        failed = [False] * len(calls) if is_errors is None else is_errors
        if not len(calls) == len(values) == len(failed):
            raise InvalidInput(f"{len(calls)} calls have {len(values)} values and {len(failed)} error marks.")
        rows = zip(calls, values, failed, strict=True)
        return cls(
            tool_call_results=[
                _Result(call_id=call.id, name=call.name, value=value, is_error=is_error)
                for call, value, is_error in rows
            ]
        )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, cls) or (isinstance(value, dict) and "tool_call_results" in value):
            return value
        if isinstance(value, list):
            return {"tool_call_results": value}
        if isinstance(value, dict) and {"name", "value"} <= value.keys():
            return {"tool_call_results": [value]}
        raise ValueError("tool call results are a list of {'name': ..., 'value': ...}")


def _hidden(member: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without a member that models do not see."""
    schema.get("properties", {}).pop(member, None)
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name != member]
    return schema


def _require_arguments(name: str, args: Mapping[str, Any]) -> None:
    """Require a JSON object, or the tool would run with its defaults instead.

    Raises:
        ToolFailed: the arguments are none.
    """
    from ..lm.dialects.answer import PARTIAL

    if set(args) == {PARTIAL} and isinstance(args[PARTIAL], str):
        cause = InvalidInput(
            f"the model's arguments are not a JSON object ({len(args[PARTIAL])} characters, perhaps cut by "
            f"max_tokens), so the tool was not called. Raise max_tokens or ask again.",
            field="args",
        )
        raise ToolFailed(name, cause) from cause


def _is_call(value: Mapping[str, Any]) -> bool:
    return "function" in value or ("name" in value and ("args" in value or "arguments" in value))


def _normal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's id, name and arguments, whichever of the two forms it has."""
    if "function" in value:
        function = value.get("function") or {}
        if not isinstance(function, Mapping):
            raise ValueError("a call's function is a mapping")
        name, arguments = function.get("name") or value.get("name"), function.get("arguments", {})
    else:
        name, arguments = value.get("name"), value.get("args", value.get("arguments", {}))
    if isinstance(arguments, str):
        from .lenient_json import loads

        arguments = loads(arguments)
    elif arguments is None:
        arguments = {}
    elif not isinstance(arguments, dict):
        raise ValueError("a call's arguments are a mapping")
    return {"id": value.get("id") or value.get("call_id"), "name": name, "args": arguments}
