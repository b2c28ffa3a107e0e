"""Past turns of a conversation: the input that holds them, and the text and tool calls of each turn.

Tool calls of the past become messages of their own where function calling is native and every call has its result
under the same id; otherwise they are text, as DSPy has it (`format_conversation_history`, dspy/adapters/base.py 3.4.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidInput
from ..signatures.annotations import is_dspy_type
from ..signatures.field import Field
from ..signatures.signature import Signature
from .function_calling import is_tool_calls
from .rendering import jsonable

if TYPE_CHECKING:
    from ..types.tool_calls import ToolCallResults, ToolCalls
    from .chat_format import ChatFormat

RESULTS: Final = "tool_call_results"  # the field under which results are shown as text


def history_field(sig: Signature) -> str | None:
    """Return the name of the input that is a `dspy.History`; the first one, as in DSPy."""
    for name, field in sig.input_fields.items():
        if is_dspy_type(field.annotation) and field.annotation.dspy_name == "dspy.History":
            return name
    return None


def turns_of(history: Any) -> Sequence[Mapping[str, Any]]:
    """Return the turns of a History, of its wire form `{"messages": [...]}`, or of a plain list; none for None.

    Raises:
        InvalidInput: it is anything else.
    """
    if history is None:
        return ()
    found = history.get("messages") if isinstance(history, Mapping) else getattr(history, "messages", history)
    if not isinstance(found, list | tuple) or not all(isinstance(turn, Mapping) for turn in found):
        raise InvalidInput("A history is a History, or a list of mappings with one mapping for each turn.")
    return found


class HistoryTurn:
    """The model's side of one past turn: its text, its tool calls, and their results.

    Raises:
        InvalidInput: tool calls or results that are none.
    """

    def __init__(self, values: Mapping[str, Any], outputs: Mapping[str, Field], format_: ChatFormat) -> None:
        self.values = values
        self.outputs = outputs
        self._format = format_
        self._name, self.calls = _calls_in(values)
        self.results = None if self.calls is None else _results_of(self.calls)

    def as_text(self) -> str:
        """Return the assistant's message; the results of its calls are not part of it."""
        values = self.values
        if self._name is not None and self.calls is not None and self.results is not None:
            values = {**values, self._name: self.calls.model_copy(update={"tool_call_results": None})}
        return self._format.answer(self.outputs, values, None)

    def as_messages(self) -> Iterator[dict[str, Any]]:
        """Yield the assistant's message with its calls, then one message per result, where their ids agree."""
        shown = {
            name: field
            for name, field in self.outputs.items()
            if not is_tool_calls(field.annotation) and self.values.get(name) is not None
        }
        content = self._format.answer(shown, self.values, None) if shown else ""
        calls, results = self._answered()
        if content or calls is not None:
            message: dict[str, Any] = {"role": "assistant", "content": content or None}
            yield message if calls is None else {**message, "tool_calls": calls}
        yield from results

    def _answered(self) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]]]:
        """Return the calls and their results as messages hold them; (None, []) where a result matches no call."""
        if self.calls is None or self.results is None:
            return None, []
        ids = [call.id for call in self.calls.tool_calls]
        if ids != [result.call_id for result in self.results.tool_call_results] or not all(ids):
            return None, []
        return [_call_message(call) for call in self.calls.tool_calls], [
            {"role": "tool", "tool_call_id": each.call_id, "name": each.name, "content": _result_text(each.value)}
            for each in self.results.tool_call_results
        ]


def _calls_in(values: Mapping[str, Any]) -> tuple[str | None, ToolCalls | None]:
    """Return the first value of a turn that holds tool calls, with its name."""
    for name, value in values.items():
        is_typed = is_dspy_type(type(value)) and value.dspy_name == "dspy.ToolCalls"
        if is_typed or (isinstance(value, dict) and "tool_calls" in value):
            from ..types.tool_calls import ToolCalls

            return name, _validated(ToolCalls, value, f"The history's {name!r} holds no tool calls")
    return None, None


def _results_of(calls: ToolCalls) -> ToolCallResults | None:
    if calls.tool_call_results is None:
        return None
    from ..types.tool_calls import ToolCallResults

    made: ToolCallResults = _validated(
        ToolCallResults, calls.tool_call_results, "The history's tool calls hold no results"
    )
    return made


def _validated(kind: Any, value: Any, problem: str) -> Any:
    try:
        return kind.model_validate(value)
    except ValueError as error:
        raise InvalidInput(f"{problem}: a list of calls with 'name' and 'args', of results with 'value'.") from error


def _call_message(call: Any) -> dict[str, Any]:
    arguments = json.dumps(jsonable(call.args), ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _result_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)
