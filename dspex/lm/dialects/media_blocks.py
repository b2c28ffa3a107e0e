"""Word the sound and the files of messages for each API, and put them where a worker's request has a stand-in. Pure.

DSPy's own client has no place for most of them: it leaves a request with such a block to LiteLLM, and what that writes
is written here. Workers ask by DSPy's own client, so they send a text in the place of each block, and the block beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, LMUnsupportedFeatureError
from .media_checks import require_part

if TYPE_CHECKING:
    from ..record import LM

_UNNAMED = "my_file.pdf"  # LiteLLM's name for a file without one, which OpenAI's API requires
_TAKE_NONE = frozenset({"deepseek", "ollama"})  # servers to which DSPy leaves such blocks out
_ROLES = ("messages", "input")  # where a body has its messages


def chat_block(lm: LM, block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block of sound, or of a file, as Chat Completions takes it.

    Raises:
        LMUnsupportedFeatureError: it is another block, or the server takes none.
    """
    if lm.provider.id in _TAKE_NONE:
        raise unsupported(lm, block)
    if (sound := _sound(block)) is not None:
        return {"type": "input_audio", "input_audio": sound}
    if (file := _file(block)) is None:
        raise unsupported(lm, block)
    if "file_data" in file and "filename" not in file:
        file["filename"] = _UNNAMED
    return {"type": "file", "file": file}


def responses_block(lm: LM, block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block of sound, or of a file, as the Responses API takes it.

    Raises:
        LMUnsupportedFeatureError: it is another block.
    """
    if (sound := _sound(block)) is not None:
        return {"type": "input_audio", "audio": sound["data"], "format": sound["format"]}
    if (file := _file(block)) is None:
        raise unsupported(lm, block)
    if "file_data" not in file:
        return {"type": "input_file", "file_id": file["file_id"]}
    name = file.get("filename") or f"file.{_extension(file['file_data'])}"
    return {"type": "input_file", "filename": name, "file_data": file["file_data"]}


def messages_block(lm: LM, block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file as Anthropic's Messages take it; they know no names of files, and no sound.

    Raises:
        LMUnsupportedFeatureError: it is another block.
    """
    if (file := _file(block)) is None:
        raise unsupported(lm, block)
    if "file_data" not in file:
        return {"type": "document", "source": {"type": "file", "file_id": file["file_id"]}}
    if not file["file_data"].startswith("data:"):
        raise LMUnsupportedFeatureError(
            "A file's file_data must be data:<media-type>;base64,<payload>.", model=lm.model, provider=lm.provider.id
        )
    return {"type": "document", "source": source_of(file["file_data"])}


def source_of(url: str) -> dict[str, str]:
    """Return an address, or a data URI's content, as Anthropic's Messages take it.

    Raises:
        InvalidInput: a data URI that is none.
    """
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, payload = url[5:].partition(",")
    if not head.endswith(";base64") or not payload:
        raise InvalidInput("A data URI must be data:<media-type>;base64,<payload>.")
    return {"type": "base64", "media_type": head[: -len(";base64")], "data": payload}


def blocks_of(lm: LM, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a worker's blocks as the LM's API takes them, by the texts that stand for them.

    Raises:
        LMUnsupportedFeatureError, InvalidInput: one cannot be sent there, or holds nothing that can be read.
    """
    words = _WORDS.get(lm.provider.dialect, _refusing)
    for block in given.values():
        require_part(lm, block, "a message")
    return {text: words(lm, block) for text, block in given.items()}


def unsupported(lm: LM, block: Mapping[str, Any]) -> LMUnsupportedFeatureError:
    """Return the error for a block that has no place in a request to this LM."""
    return LMUnsupportedFeatureError(
        f"A content block of type {block.get('type')!r} cannot be sent there.", model=lm.model, provider=lm.provider.id
    )


_WORDS: dict[str, Callable[[LM, Mapping[str, Any]], dict[str, Any]]] = {
    "openai": chat_block,
    "responses": responses_block,
    "anthropic": messages_block,
}


def with_blocks(body: dict[str, Any], blocks: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a request's body with the blocks in the places of the texts that stand for them."""
    for name in _ROLES:
        if isinstance(rows := body.get(name), list):
            body = {**body, name: [_filled(row, blocks) for row in rows]}
    return body


def _refusing(lm: LM, block: Mapping[str, Any]) -> dict[str, Any]:
    raise unsupported(lm, block)


def _filled(row: Any, blocks: Mapping[str, dict[str, Any]]) -> Any:
    content = row.get("content") if isinstance(row, dict) else None
    if isinstance(content, str) and content in blocks:
        return {**row, "content": [blocks[content]]}
    if not isinstance(content, list):
        return row
    found = [blocks.get(str(each.get("text")), each) if isinstance(each, dict) else each for each in content]
    return {**row, "content": found}


def _sound(block: Mapping[str, Any]) -> dict[str, str] | None:
    sound = block.get("input_audio") if block.get("type") == "input_audio" else None
    if not isinstance(sound, Mapping) or not all(isinstance(sound.get(name), str) for name in ("data", "format")):
        return None
    return {"data": sound["data"], "format": sound["format"]}


def _file(block: Mapping[str, Any]) -> dict[str, str] | None:
    """Return a file's members in DSPy's order; `media_checks` has seen that there is a content."""
    file = block.get("file") if block.get("type") == "file" else None
    if not isinstance(file, Mapping):
        return None
    given = {name: file.get(name) for name in ("file_data", "file_id", "filename")}
    found = {name: value for name, value in given.items() if value and isinstance(value, str)}
    return found if "file_data" in found or "file_id" in found else None


def _extension(data: str) -> str:
    kind = data.removeprefix("data:").partition(";")[0] if data.startswith("data:") else ""
    return kind.partition("/")[2].partition("+")[0] or "bin"
