"""Write a history as `dspy.inspect_history` does (dspy/utils/inspect_history.py, 3.4.1). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..terminal_text import inert
from .call_history import HistoryEntry

RED, GREEN, BLUE = 31, 32, 34


def text_of(entries: Sequence[HistoryEntry], *, colors: bool = False) -> str:
    """Return the entries' messages and answers as text; with `colors` for a terminal."""
    paint = _painted if colors else _plain
    shown = map(_for_terminal, entries) if colors else entries
    blocks = [block for entry in shown for block in _blocks(entry, paint)]
    return "".join(f"{block}\n" for block in (*blocks, "\n\n\n"))


def _for_terminal(entry: HistoryEntry) -> HistoryEntry:
    """Return the entry with texts that do nothing to a terminal."""
    messages, outputs = _inert(entry.messages), _inert(entry.outputs)
    return replace(entry, messages=messages, outputs=outputs, error=inert(entry.error))


def _inert(value: Any) -> Any:
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, Mapping):
        return {name: _inert(part) for name, part in value.items()}
    return [_inert(part) for part in value] if isinstance(value, list | tuple) else value


def _blocks(entry: HistoryEntry, paint: Any) -> Iterator[str]:
    yield "\n\n\n"
    yield paint(BLUE, f"[{entry.time.isoformat()}]")
    for message in entry.messages:
        yield paint(RED, f"{str(message.get('role', '')).capitalize()} message:")
        yield from _content(message.get("content"), paint)
        yield from _tool_calls(message.get("tool_calls"), paint)
        yield "\n"
    if entry.error:
        yield paint(RED, "Error:")
        yield entry.error
        return
    yield from _answer(entry.outputs, paint)


def _answer(outputs: Sequence[Any], paint: Any) -> Iterator[str]:
    first = outputs[0] if outputs else ""
    text = str((first.get("text") if isinstance(first, Mapping) else first) or "")
    if text or not isinstance(first, Mapping):
        yield paint(RED, "Response:")
        yield paint(GREEN, text.strip())
    if isinstance(first, Mapping):
        yield from _tool_calls(first.get("tool_calls"), paint)
    if len(outputs) > 1:
        yield paint(RED, f" \t (and {len(outputs) - 1} other completions)", end="")


def _content(content: Any, paint: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content.strip()
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, Mapping):
            yield str(block)
        elif block.get("type") == "text":
            yield str(block.get("text") or "").strip()
        else:
            yield paint(BLUE, _media(block).strip())


def _media(block: Mapping[str, Any]) -> str:
    kind = block.get("type")
    if kind == "image_url":
        url = str(_map(block.get("image_url")).get("url", ""))
        if "base64" not in url:
            return f"<image_url: {url}>"
        head, _, data = url.partition("base64,")
        return f"<{head}base64,<IMAGE BASE 64 ENCODED({len(data)})>"
    if kind == "input_audio":
        audio = _map(block.get("input_audio"))
        return f"<audio format='{audio.get('format')}' base64-encoded, length={len(str(audio.get('data', '')))}>"
    file = _map(block.get("file", block.get("input_file")))
    name, id = file.get("filename", ""), file.get("file_id", "")
    return f"<file: name:{name}, id:{id}, data_length:{len(str(file.get('file_data', '')))}>"


def _tool_calls(calls: Any, paint: Any) -> Iterator[str]:
    if calls:
        yield paint(RED, "Tool calls:")
    for call in map(_map, calls if isinstance(calls, list) else ()):
        function = _map(call.get("function"))
        arguments = function.get("arguments")
        arguments = call.get("args", call.get("arguments", {})) if arguments is None else arguments
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                pass
        shown = json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict | list) else str(arguments)
        yield paint(GREEN, f"{function.get('name') or call.get('name', '<unknown>')}: {shown}")


def _map(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and nothing for what is none: a worker may say anything."""
    return value if isinstance(value, Mapping) else {}


def _painted(color: int, text: str, end: str = "\n") -> str:
    return f"\x1b[{color}m{text.lstrip() if color == GREEN else text}\x1b[0m{end}"


def _plain(color: int, text: str, end: str = "\n") -> str:
    return (text.lstrip() if color == GREEN else text) + end
