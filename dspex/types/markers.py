"""Expand DSPy's custom-type markers into content blocks; hostile text must not pass for one (RULES X2).

DSPy serializes an image inside a prompt as a marked JSON text and later cuts each marked text out into content
blocks. An ordinary string that holds the marker would do the same, so such strings are refused before they get
here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from .lenient_json import loads

START: Final = "<<CUSTOM-TYPE-START-IDENTIFIER>>"
END: Final = "<<CUSTOM-TYPE-END-IDENTIFIER>>"


def texts_in(plain: Any) -> Iterator[str]:
    """Yield every text in plain data, keys included."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, list):
        for item in plain:
            yield from texts_in(item)
    elif isinstance(plain, dict):
        yield from (key for key in plain if isinstance(key, str))
        for item in plain.values():
            yield from texts_in(item)


def expand(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message with each marked text as content blocks; only user messages have any."""
    content = message["content"]
    if message["role"] != "user" or not isinstance(content, str) or START not in content:
        return message
    return {**message, "content": _blocks(content)}


def _blocks(text: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    done = 0
    begin = text.find(START)
    # Not by an expression: for markers that are never closed it would search each to the end of the text.
    while begin >= 0 and (end := text.find(END, begin + len(START))) >= 0:
        if begin > done:
            blocks.append({"type": "text", "text": text[done:begin]})
        blocks.extend(_payload_blocks(text[begin + len(START) : end].strip()))
        done = end + len(END)
        begin = text.find(START, done)
    if done < len(text):
        blocks.append({"type": "text", "text": text[done:]})
    return blocks


def _payload_blocks(payload: str) -> list[dict[str, Any]]:
    parsed = _parsed(payload)
    if not isinstance(parsed, list):
        return [{"type": "text", "text": payload}]
    return [block if isinstance(block, dict) else {"type": "text", "text": str(block)} for block in parsed]


def _parsed(payload: str) -> Any:
    for parse in (json.loads, _parse_quoted, loads):
        try:
            return parse(payload)
        except Exception:  # any of the three may fail in its own way; DSPy then tries the next
            continue
    return None


def _parse_quoted(payload: str) -> Any:
    return json.loads(json.loads(f'"{payload}"'))  # a marked text inside another JSON value is encoded twice
