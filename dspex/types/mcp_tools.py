"""Make tools of those that an MCP server offers (`dspex.Tool.from_mcp_tool`), without importing `mcp`.

Follows dspy/utils/mcp.py of DSPy 3.4.1: the names and texts that a model sees, what a call gives, what an error is. A
session belongs to the event loop that it was opened in; calls from other loops and threads are made there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

ResultMode = Literal["text", "structured"]

_TYPES: Mapping[str, Any] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict,
}  # fmt: skip


def arguments_of(tool: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema and the type of each argument of an MCP tool, by name."""
    schema = _member(tool, "input_schema", "inputSchema") or {}
    properties = schema.get("properties") or {}
    definitions = schema.get("$defs") or {}
    args = {name: _resolved(part, definitions) if definitions else part for name, part in properties.items()}
    return args, {name: _type_of(part) for name, part in args.items()}


def caller_of(session: Any, name: str, result_mode: ResultMode) -> Any:
    """Return a coroutine function that calls the tool of this name."""
    import asyncio  # a process that only predicts needs none

    try:
        home = asyncio.get_running_loop()
    except RuntimeError:
        home = None

    async def call(**arguments: Any) -> Any:
        asked = session.call_tool(name, arguments=arguments)
        if home is None or home is asyncio.get_running_loop() or not home.is_running():
            return result_of(await asked, result_mode)
        return result_of(await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, home)), result_mode)

    return call


def result_of(result: Any, mode: ResultMode) -> Any:
    """Return what a call gave: its texts (one as it is, several in a list), else its other contents.

    Raises:
        RuntimeError: the tool failed, in the server's words.
    """
    texts = [part.text for part in result.content if getattr(part, "type", None) == "text"]
    others = [part for part in result.content if getattr(part, "type", None) != "text"]
    given = texts[0] if len(texts) == 1 else texts
    if _member(result, "is_error", "isError"):
        raise RuntimeError(f"Failed to call a MCP tool: {given}")
    if mode == "structured" and _is_set(result, "structured_content", "structuredContent"):
        return _member(result, "structured_content", "structuredContent")
    return given or others


def _member(thing: Any, *names: str) -> Any:
    """Return the member that the versions of the SDK call by different names."""
    return next((getattr(thing, name) for name in names if hasattr(thing, name)), None)


def _is_set(thing: Any, *names: str) -> bool:
    """Whether an optional member was set, to null too."""
    known = getattr(thing, "model_fields_set", None)
    return any(name in known if known is not None else hasattr(thing, name) for name in names)


def _type_of(schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    return _TYPES.get(kind, Any) if isinstance(kind, str) else Any


def _resolved(part: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema with every reference replaced by what it names."""
    if isinstance(part, list):
        return [_resolved(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _resolved(definitions[str(part["$ref"]).split("/")[-1]], definitions)
    return {key: _resolved(item, definitions) for key, item in part.items() if key != "$defs"}
