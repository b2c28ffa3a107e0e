"""Send sound and files through DSPy's own client, which has no place for most of them: a text stands for each.

The parent words the block and puts it where the text stands, so both routes send the same; without it DSPy would leave
the whole request to LiteLLM, which connects by itself. The texts are random, and those of no prompt.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

from .lm_transport import LMCallOptions, current_lm_call

_KINDS = frozenset({"input_audio", "file"})
_DIALECTS = frozenset({"openai", "responses", "anthropic"})  # of which the parent words such blocks


def carrying(execute: Any) -> Any:
    """Return DSPy's `execute` for calls with any content."""

    @wraps(execute)
    def execute_here(lm: Any, call: Any) -> Any:
        return execute(lm, with_stand_ins(lm, call, current_lm_call()))

    return execute_here


def acarrying(aexecute: Any) -> Any:
    """Return DSPy's `aexecute` for calls with any content."""

    @wraps(aexecute)
    async def aexecute_here(lm: Any, call: Any) -> Any:
        return await aexecute(lm, with_stand_ins(lm, call, current_lm_call()))

    return aexecute_here


def with_stand_ins(lm: Any, call: Any, asked: LMCallOptions | None) -> Any:
    """Return the prepared call with texts for its sound and files, which `asked` then holds."""
    record: Mapping[str, Any] = getattr(lm, "record", None) or {}
    messages = None if call.request is not None else call.legacy.get("messages")
    if asked is None or record.get("dialect") not in _DIALECTS or not messages or not any(map(_has_any, messages)):
        return call
    rows = [_without(row, asked.media) if _has_any(row) else row for row in messages]
    return replace(call, legacy={**call.legacy, "messages": rows})


def _has_any(row: Any) -> bool:
    content = row.get("content") if isinstance(row, Mapping) else None
    return isinstance(content, list) and any(map(_is_media, content))


def _is_media(block: Any) -> bool:
    return isinstance(block, Mapping) and block.get("type") in _KINDS


def _without(row: Mapping[str, Any], media: dict[str, Any]) -> dict[str, Any]:
    return {**row, "content": [_stand_in(each, media) if _is_media(each) else each for each in row["content"]]}


def _stand_in(block: Mapping[str, Any], media: dict[str, Any]) -> dict[str, str]:
    token = f"dspex-media-{secrets.token_hex(16)}"
    media[token] = block
    return {"type": "text", "text": token}
