"""Security: a journal that a stranger wrote, sums and all, is refused as damaged and left as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dspex.errors import JournalError
from dspex.programs.optimization import journal
from dspex.programs.optimization.journal import Journal
from dspex.programs.optimization.journal_lines import _sum

BODIES = {
    "an answer without a key": '{"kind": "answer"',
    "a candidate without one": '{"kind": "candidate"',
    "a number that is none": '{"kind": "diverged", "number": "x"',
    "a number without end": '{"kind": "diverged", "number": 1e999',
    "a number that is a list": '{"kind": "diverged", "number": [1]',
    "too deep": '{"kind": ' + "[" * 100_000 + "]" * 100_000,
    "no JSON": '{"kind": nonsense',
    "a pickle": '{"kind": "\\x80\\x04cos\\nsystem"',
}


def _signed(text: str, before: str) -> tuple[bytes, str]:
    digest = _sum(before, text)
    return f'{text}, "sum": "{digest}"}}\n'.encode("ascii"), digest


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_odd_lines_with_right_sums_are_damage(body: str, tmp_path: Path) -> None:
    """unit: nothing of the file is changed, and no other error comes."""
    path = tmp_path / "job.jsonl"
    Journal.create(path, {"id": "x"}).close()
    begun = path.read_bytes()
    line, _ = _signed(body, json.loads(begun)["sum"])
    path.write_bytes(begun + line)
    with pytest.raises(JournalError) as refused:
        Journal.resume(path)
    assert refused.value.reason == "damaged" and path.read_bytes() == begun + line


def test_line_that_is_too_long_is_no_torn_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: what follows it would be cut off with it."""
    path = tmp_path / "job.jsonl"
    Journal.create(path, {"id": "x"}).close()
    begun = path.read_bytes()
    monkeypatch.setattr(journal, "LINE_MOST", 1000)
    path.write_bytes(begun + b"x" * 5000 + b"\n")
    with pytest.raises(JournalError) as refused:
        Journal.resume(path)
    assert refused.value.reason == "damaged" and len(path.read_bytes()) == len(begun) + 5001
