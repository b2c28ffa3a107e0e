"""Estimate what a stream has used whose reader left before its end: providers report it last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dialects.stream_reader import StreamReader

TOKEN_CHARACTERS = 4  # of ordinary English, as OpenAI and Anthropic tell their users
LOOKED_AT = 1024 * 1024  # bytes of a body: what estimating one may cost
_ENCODED = re.compile(rb"[A-Za-z0-9+/=_-]{1000,}")  # images and files, which no rule by length fits


def unfinished_usage(body: bytes, reader: StreamReader, reported: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was reported so far, and an estimate by the length of prompt and answer where that is more."""
    prompt = reported.get("prompt_tokens") or len(_ENCODED.sub(b"", body[:LOOKED_AT])) // TOKEN_CHARACTERS
    calls = (piece for call in reader.calls.values() for piece in (call["name"], *call["arguments"]))
    read = sum(map(len, chain(reader.text, reader.reasoning, reader.refusal, calls)))
    completion = max(reported.get("completion_tokens") or 0, -(-read // TOKEN_CHARACTERS))
    total = max(reported.get("total_tokens") or 0, prompt + completion)
    return {**reported, "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
