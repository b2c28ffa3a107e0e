"""Mark the messages of a request that the provider is to cache, as LiteLLM's `cache_control_injection_points` say.

A point names messages by `role` ("system", "user", "assistant") or by `index` (from the end if it is negative), among
those of the body with the system prompt as the first. The last block of each gets the mark, `control` or
{"type": "ephemeral"}; a point whose location is "tool_config" gives it to the last tool. Anthropic takes four: of more,
those of the tools, the system prompt and the last messages stay. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MOST = 4  # marks in a request
_EPHEMERAL = {"type": "ephemeral"}


def marked(body: dict[str, Any], points: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the body with the marks that the points ask for."""
    points, tools = list(points), body.get("tools") or []
    of_tools = [point for point in points if point.get("location") == "tool_config"] if tools else []
    if of_tools:
        control = of_tools[-1].get("control") or _EPHEMERAL
        body = {**body, "tools": [*tools[:-1], {**tools[-1], "cache_control": control}]}
    most = MOST - bool(of_tools)
    points = [point for point in points if point.get("location") != "tool_config"]
    system = body.get("system")
    rows = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
    has_system = bool(rows)
    rows += body.get("messages") or ()
    wanted = _wanted(rows, points)
    if len(wanted) > most:
        first = [at for at in wanted if rows[at]["role"] == "system"][:1]
        wanted = {at: wanted[at] for at in (*first, *list(wanted)[len(first) - most :])}
    rows = [_with(row, wanted[at]) if at in wanted else row for at, row in enumerate(rows)]
    changed = {"system": rows.pop(0)["content"]} if has_system else {}
    return {**body, **changed, "messages": rows}


def _wanted(rows: list[dict[str, Any]], points: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Return the mark of each message that gets one, by its place."""
    found: dict[int, Mapping[str, Any]] = {}
    for point in points:
        control, index = point.get("control") or _EPHEMERAL, point.get("index")
        index = int(index) if isinstance(index, str) else index
        for at, row in enumerate(rows):
            is_meant = row["role"] == point.get("role") if index is None else at == index % len(rows)
            if is_meant and (index is None or -len(rows) <= index < len(rows)):
                found[at] = control
    return dict(sorted(found.items()))


def _with(row: dict[str, Any], control: Mapping[str, Any]) -> dict[str, Any]:
    content = row.get("content")
    if isinstance(content, str) and content:
        return {**row, "content": [{"type": "text", "text": content, "cache_control": control}]}
    if isinstance(content, list) and content and isinstance(content[-1], dict):
        return {**row, "content": [*content[:-1], {**content[-1], "cache_control": control}]}
    return row
