"""Take odd counters of tokens out of a reply that a worker reads: DSPy's reader fails over them, after all was paid.

Pure. Natively they are left out where they are read (`answer.count`).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .json_body import decode

if TYPE_CHECKING:
    from ..record import LM

# A member that counts tokens, or holds counters, with a value that is none. In a text such a name ends in `\"`, so that
# only members match; what matches without need is read again, and stays as it came.
_ODD = re.compile(
    rb'"\w*(?:[Tt]okens|TokenCount)"\s*:\s*(?!\d+\s*[,}]|null)|"(?:usage\w*|\w*_details)"\s*:\s*(?!\{|null)'
)
_HOLDERS = ("usage", "usageMetadata")


def with_sound_usage(lm: LM, body: bytes) -> bytes:
    """Return the body without counters that are no whole numbers; as it came where there are none."""
    if _ODD.search(body) is None:
        return body
    data = decode(lm, body)
    found = {name: data[name] for name in _HOLDERS if name in data}
    sound = {name: _counters(value) for name, value in found.items()}
    return body if sound == found else json.dumps({**data, **sound}).encode()  # ASCII, as in `repaired`


def _counters(given: Any) -> Any:
    if not isinstance(given, dict):
        return None
    return {name: _counter(name, value) for name, value in given.items()}


def _counter(name: str, value: Any) -> Any:
    if name.endswith("_details"):
        return _counters(value)
    is_count = name.lower().endswith(("tokens", "tokencount"))
    return value if not is_count or (type(value) is int and value >= 0) else None
