"""Let texts stand for sound and files while DSPy's library writes a request: it has no place for most of them.

Workers do the same (`carried_media`), and the blocks are worded in one place for both routes (`media_blocks`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .dialect import Message

_KINDS = frozenset({"input_audio", "file"})
_DIALECTS = frozenset({"openai", "responses", "anthropic"})  # whose blocks are worded here


def with_stand_ins(dialect: str, messages: Sequence[Message]) -> tuple[Sequence[Message], dict[str, Mapping[str, Any]]]:
    """Return the messages with random texts for such blocks, and the blocks by these texts."""
    media: dict[str, Mapping[str, Any]] = {}
    if dialect not in _DIALECTS or not any(map(_has_any, messages)):
        return messages, media
    return [_without(row, media) if _has_any(row) else row for row in messages], media


def _has_any(row: Message) -> bool:
    content = row.get("content")
    return isinstance(content, list) and any(map(_is_media, content))


def _is_media(block: Any) -> bool:
    return isinstance(block, Mapping) and block.get("type") in _KINDS


def _without(row: Message, media: dict[str, Mapping[str, Any]]) -> Message:
    return {**row, "content": [_stand_in(each, media) if _is_media(each) else each for each in row["content"]]}


def _stand_in(block: Mapping[str, Any], media: dict[str, Mapping[str, Any]]) -> dict[str, str]:
    text = f"dspex-media-{os.urandom(16).hex()}"
    media[text] = block
    return {"type": "text", "text": text}
