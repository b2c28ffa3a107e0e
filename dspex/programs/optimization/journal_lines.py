"""Write and read the lines of a journal: a JSON object each, with a checksum over it and all that came before. Pure.

A line is `{"kind": ..., ..., "sum": "<16 hex digits>"}`. The sum is SHA-256's beginning over the sum before and the
text before it, so a line that was changed, lost, doubled or moved is seen. A last line without its end was being
written when its process died: it is dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1
FORMAT = "dspex-journal"
_MARK = ', "sum": "'
_TAIL = len(_MARK) + 16 + len('"}')


class DamagedLine(ValueError):
    """A line is not as it was written; `number` counts from 1."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number} {reason}")
        self.number = number
        self.reason = reason


def encoded(record: Mapping[str, Any], before: str) -> tuple[bytes, str]:
    """Return a record's line and its sum; `before` is the sum of the line before.

    Raises:
        TypeError, ValueError: it is no plain data.
    """
    text = json.dumps(record, ensure_ascii=True, allow_nan=False)[:-1]
    digest = _sum(before, text)
    return f'{text}{_MARK}{digest}"}}\n'.encode("ascii"), digest


@dataclass(slots=True)
class LineReader:
    """Reads lines in turn; `number` and `sum` are those of the last one that was read."""

    number: int = 0
    sum: str = ""

    def read(self, line: bytes) -> dict[str, Any]:
        """Return the line's record.

        Raises:
            DamagedLine: it is not as it was written.
        """
        try:
            text = line.rstrip(b"\n").decode("ascii")
        except UnicodeDecodeError:
            raise DamagedLine(self.number + 1, "holds bytes that no journal has") from None
        head, tail = text[:-_TAIL], text[-_TAIL:]
        if not (tail.startswith(_MARK) and tail.endswith('"}')):
            raise DamagedLine(self.number + 1, "has no checksum")
        digest = tail[len(_MARK) : -2]
        if digest != _sum(self.sum, head):
            raise DamagedLine(self.number + 1, "does not have the checksum that it says, or one before it is missing")
        try:
            record: dict[str, Any] = json.loads(head + "}")
        except (ValueError, RecursionError):
            raise DamagedLine(self.number + 1, "is no JSON object, or nested too deep") from None
        self.number += 1
        self.sum = digest
        return record


def _sum(before: str, text: str) -> str:
    return hashlib.sha256(f"{before}\n{text}".encode("ascii")).hexdigest()[:16]
