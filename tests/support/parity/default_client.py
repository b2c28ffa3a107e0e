"""What DSPy's default client does with sound and files, which lm15 alone refuses: LiteLLM's words, with lm15's bytes.

`sent` puts a text in the place of each block, since lm15 has none for it; `filled` puts the block into the body. What
would be left out (sound for Anthropic, both for DeepSeek and Ollama) or cannot be read is refused, as
`docs/internals/parity.md` says.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dspy.clients import execution
from dspy.utils.exceptions import LMUnsupportedFeatureError

_LEFT_OUT = ("deepseek/", "ollama/", "ollama_chat/")
_KINDS = ("input_audio", "file")


@contextmanager
def sent(model: str) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a block's calls by the texts that stand for them."""
    blocks: dict[str, Any] = {}
    if model.startswith("gemini/"):  # for which lm15 has words of its own
        yield blocks
        return
    canonical = execution._canonical

    def with_texts(call: Any, *, compat: Any = None) -> Any:
        rows = [_row(row, model, blocks) for row in call.legacy["messages"]]
        return canonical(replace(call, legacy={**call.legacy, "messages": rows}), compat=compat)

    execution._canonical = with_texts
    try:
        yield blocks
    finally:
        execution._canonical = canonical


def filled(body: bytes, blocks: dict[str, Any]) -> bytes:
    """The body with its blocks."""
    if not blocks:
        return body
    asked = json.loads(body)
    for row in asked["messages"]:
        content = row["content"]
        if isinstance(content, str):
            row["content"] = [blocks[content]] if content in blocks else content
        elif content is not None:
            row["content"] = [blocks.get(block.get("text"), block) for block in content]
    return json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()


def _row(row: Any, model: str, blocks: dict[str, Any]) -> Any:
    if not isinstance(row.get("content"), list):
        return row
    content = []
    for block in row["content"]:
        if block.get("type") in _KINDS:
            text = f"block {len(blocks)} of the call"
            blocks[text] = _claudes(block) if model.startswith("anthropic/") else _openais(block, model)
            block = {"type": "text", "text": text}
        content.append(block)
    return {**row, "content": content}


def _openais(block: Any, model: str) -> Any:
    _check(block)
    if model.startswith(_LEFT_OUT):
        raise LMUnsupportedFeatureError("left out")
    file = block.get("file")
    if file is None or "file_data" not in file or file.get("filename"):
        return block
    return {"type": "file", "file": {**file, "filename": "my_file.pdf"}}


def _claudes(block: Any) -> Any:
    _check(block)
    if block["type"] == "input_audio":
        raise LMUnsupportedFeatureError("no sound")
    file = block["file"]
    if "file_data" not in file:
        return {"type": "document", "source": {"type": "file", "file_id": file["file_id"]}}
    head, _, data = file["file_data"].partition(",")
    source = {"type": "base64", "media_type": head[len("data:") : -len(";base64")], "data": data}
    return {"type": "document", "source": source}


def _check(block: Any) -> None:
    file, sound = block.get("file"), block.get("input_audio")
    data = sound["data"] if sound else file.get("file_data", "")
    if file and not data and file.get("file_id"):
        return
    try:
        assert base64.b64decode(data.partition(",")[2] if file else data, validate=True)
    except (AssertionError, binascii.Error):
        raise LMUnsupportedFeatureError("nothing to read") from None
