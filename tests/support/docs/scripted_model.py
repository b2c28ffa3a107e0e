"""What the language model of the pages says: something that fits each output field of the request. Pure."""

from __future__ import annotations

import re
from typing import Any

_OUTPUTS = re.compile(r"Your output fields are:\n(.*?)(?:\nAll interactions|\nInputs will|\n\n)", re.DOTALL)
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.+?)\):", re.MULTILINE)
KNOWN = {
    "capital of France": "Paris",
    "capital of Italy": "Rome",
    "weather": "It is sunny in Rome.",
    "urgent": "yes",
    "DSPy": "A framework.",
}
BY_TYPE: dict[str, Any] = {"int": 3, "float": 0.9, "bool": True, "list[str]": ["one", "two"], "dict[str, Any]": {}}
TOOLS: dict[str, dict[str, Any]] = {"weather": {"city": "Rome"}, "search": {"query": "DSPy"}}


def answer(messages: list[dict[str, Any]]) -> Any:
    """A value for each output field that the system prompt names."""
    system, last = _text(messages[0]), _text(messages[-1])
    found = _OUTPUTS.search(system)
    fields = _FIELD.findall(found[1]) if found else []
    return {name: _value(name, kind, system, last) for name, kind in fields}


def _value(name: str, kind: str, system: str, last: str) -> Any:
    if name == "reasoning":
        return "It follows from the question."
    if name.startswith("next_"):
        return _step(name, system, last)
    if kind == "dspy.ToolCalls" or name == "tool_calls":
        return {"tool_calls": [{"name": "search", "args": {"query": "DSPy"}}]}
    if kind.startswith("Literal["):
        return kind.removeprefix("Literal[").split(",")[0].strip("'\"] ")
    if kind in BY_TYPE:
        return BY_TYPE[kind]
    return next((said for asked, said in KNOWN.items() if asked in last), "An answer.")


def _step(name: str, system: str, last: str) -> Any:
    """What an agent does next: its first known tool once, then it finishes."""
    tool = next((tool for tool in TOOLS if f") {tool}" in system), None) if "observation_0" not in last else None
    said: dict[str, Any] = {"next_tool_name": tool or "finish", "next_tool_args": TOOLS[tool] if tool else {}}
    return said.get(name, "I look it up." if tool else "I know it now.")


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or () if isinstance(part, dict))
