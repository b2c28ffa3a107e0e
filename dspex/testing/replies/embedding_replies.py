"""Replies of the endpoint of embeddings: a vector for each text, by default one that counts its words."""

from __future__ import annotations

import array
import base64
import json
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from ..script import FakeReply, FakeRequest

WIDTH = 64
EmbeddingScript = Callable[[str], Sequence[float] | FakeReply]


def hashed_words(text: str, width: int = WIDTH) -> list[float]:
    """Return a vector that counts the words of a text, each at a place of its own: the same in every process."""
    vector = [0.0] * width
    for word in re.findall(r"\w+", text.lower()):
        vector[zlib.crc32(word.encode()) % width] += 1.0
    return vector if any(vector) else [1.0] * width


def reply(request: FakeRequest, script: EmbeddingScript) -> FakeReply:
    """Return the reply to a request; the first `FakeReply` of the script is the whole of it."""
    given = request.body.get("input")
    texts = [given] if isinstance(given, str) else list(given or ())
    width = request.body.get("dimensions") or WIDTH
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        made = hashed_words(text, width) if script is hashed_words else script(text)
        if isinstance(made, FakeReply):
            return made
        data.append({"object": "embedding", "index": index, "embedding": _form(request, made)})
    tokens = sum(len(str(text)) // 4 + 1 for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    whole = {"object": "list", "data": data, "model": request.body.get("model"), "usage": usage}
    return FakeReply(body=json.dumps(whole).encode())


def _form(request: FakeRequest, vector: Sequence[float]) -> Any:
    if request.body.get("encoding_format") != "base64":
        return [float(number) for number in vector]
    return base64.b64encode(array.array("f", vector).tobytes()).decode()
