"""Read what Anthropic's streams say at their beginning: what the prompt used. lm15 passes over it. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from typing import Any

_BEGIN_MOST = 64 * 1024  # bytes in which a stream's first event is looked for
_COUNTERS = {
    "input_tokens": "input_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
}


def noting_begin(chunks: Iterable[bytes], note: Callable[[dict[str, int]], Any]) -> Generator[bytes]:
    """Yield a stream's bytes as they come; `note` gets what its first event says of usage."""
    begin: bytes | None = b""
    for chunk in chunks:
        if begin is not None:
            begin += chunk
            if b"\n\n" in begin or len(begin) > _BEGIN_MOST:
                note(_usage_in(begin.partition(b"\n\n")[0]))
                begin = None
        yield chunk


def _usage_in(event: bytes) -> dict[str, int]:
    for line in event.split(b"\n"):
        if line.startswith(b"data:") and b'"message_start"' in line:
            try:
                given = json.loads(line[5:])["message"]["usage"]
                return {name: given[key] for name, key in _COUNTERS.items() if type(given.get(key)) is int}
            except (ValueError, LookupError, TypeError, AttributeError):
                return {}
    return {}
