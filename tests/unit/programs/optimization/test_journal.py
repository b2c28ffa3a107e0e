"""Unit: journals of jobs: what is written is read; what is torn, changed, foreign or in use is told apart."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import JournalError
from dspex.programs.optimization.journal import Journal
from dspex.programs.optimization.journal_lines import DamagedLine, LineReader, encoded

ABOUT = {"id": "j1", "optimizer": "gepa"}
CANDIDATE = {"number": 0, "kind": "baseline", "score": 50.0}


def written(path: Path) -> bytes:
    journal = Journal.create(path, ABOUT)
    journal.spent = {"requests": 1}
    journal.keep("a", "lm", {"headers": [], "body": "öne"})
    journal.append_candidate(CANDIDATE)
    journal.spent = {"requests": 2}
    journal.keep("b.0", "metric.call", {"value": True})
    journal.append("end", {"state": "failed"})
    journal.close()
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """unit: answers, candidates, what was spent, and the end; the file is its owner's alone, and lines of JSON."""
    path = tmp_path / "jobs" / "j1.jsonl"
    content = written(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["kind"] for line in lines] == ["journal", "answer", "candidate", "answer", "end"]
    found = Journal.resume(path)
    assert found.about["optimizer"] == "gepa" and found.candidates[0]["score"] == 50.0 and found.torn == 0
    assert found.answer("a")["body"] == "öne" and found.answer("b.0")["value"] is True  # type: ignore[index]
    assert found.answer("b.1") is None and found.spent == {"requests": 2} and found.end is not None
    found.append("resumed", {})
    found.keep("a", "lm", {"body": "another"})  # there is one already
    found.keep("c", "lm", {"headers": [], "body": ""})
    found.close()
    assert path.read_bytes().startswith(content)
    again = Journal.resume(path)
    assert again.end is None and again.answer("a")["body"] == "öne" and again.answer("c") is not None  # type: ignore[index]
    again.close()


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    """unit: wherever its process died; what is before it stays, and what comes after it is whole."""
    path = tmp_path / "j.jsonl"
    content = written(path)
    path.write_bytes(content[:-cut])
    found = Journal.resume(path)
    assert found.torn > 0 and found.end is None and found.answer("b.0") is not None
    found.append("resumed", {})
    found.close()
    again = Journal.resume(path)
    assert again.torn == 0 and again.candidates
    again.close()


def test_a_last_line_of_nothing_is_dropped(tmp_path: Path) -> None:
    """unit: a machine died with the file's length on its disk, and not its end."""
    path = tmp_path / "j.jsonl"
    content = written(path)
    last = content.splitlines(keepends=True)[-1]
    path.write_bytes(content[: -len(last)] + b"\0" * (len(last) - 1) + b"\n")
    found = Journal.resume(path)
    assert found.torn == len(last) and found.answer("b.0") is not None
    found.close()


def _swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str, int | None]] = {
    "changed": (lambda lines: [*lines[:2], lines[2].replace(b"50.0", b"99.0"), *lines[3:]], "damaged", 3),
    "left out": (lambda lines: [*lines[:1], *lines[2:]], "damaged", 2),
    "doubled": (lambda lines: [*lines[:2], lines[1], *lines[2:]], "damaged", 3),
    "moved": (_swapped, "damaged", 2),
    "changed at the end": (lambda lines: [*lines[:-1], lines[-1].replace(b"failed", b"done..")], "damaged", 5),
    "not of JSON": (lambda lines: [*lines[:2], b"\xff\xfe\n", *lines[2:]], "damaged", 3),
    "without its first line": (lambda lines: lines[1:], "foreign", None),
    "empty": (lambda lines: [], "foreign", None),
    "another file": (lambda lines: [b'{"question": "q"}\n'], "foreign", None),
    "a program": (lambda lines: [b"{\n", b'  "demos": []\n', b"}\n"], "foreign", None),
    "of another version": (
        lambda lines: [lines[0].replace(b'"version": 1,', b'"version": 2,'), *lines[1:]], "version", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    """unit: with the line; the message says how to go on from before it."""
    change, reason, line = DAMAGES[damage]
    path = tmp_path / "j.jsonl"
    content = b"".join(change(written(path).splitlines(keepends=True)))
    path.write_bytes(content)
    with pytest.raises(JournalError) as caught:
        Journal.resume(path)
    assert (caught.value.reason, caught.value.line, caught.value.path) == (reason, line, str(path))
    assert path.read_bytes() == content
    if line is not None:
        path.write_bytes(b"".join(content.splitlines(keepends=True)[: line - 1]))
        Journal.resume(path).close()


def test_a_journal_has_one_process(tmp_path: Path) -> None:
    """unit: and a new job never writes into a file that is there."""
    path = tmp_path / "j.jsonl"
    journal = Journal.create(path, ABOUT)
    openings: list[tuple[Callable[[Path], Journal], str]] = [
        (Journal.resume, "in_use"), (lambda one: Journal.create(one, ABOUT), "exists"),
    ]  # fmt: skip
    for opening, reason in openings:
        with pytest.raises(JournalError) as caught:
            opening(path)
        assert caught.value.reason == reason
    journal.close()
    Journal.resume(path).close()


def _linked(path: Path) -> Path:
    (path.parent / "link").symlink_to(path)
    return path.parent / "link"


def _opened_up(path: Path) -> Path:
    path.chmod(0o666)
    return path


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path.with_name("none"), "missing"),
    "a folder": (lambda path: path.parent, "unreadable"),
    "a link": (_linked, "unreadable"),
    "written by others": (_opened_up, "unsafe"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_safely_ours_is_refused(tmp_path: Path, case: str) -> None:
    """unit: others could have written answers into it."""
    path = tmp_path / "j.jsonl"
    written(path)
    make, reason = WRONG[case]
    with pytest.raises(JournalError) as caught:
        Journal.resume(make(path))
    assert caught.value.reason == reason


def test_a_full_disk_ends_the_journal_and_not_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """unit: it is said once, and the answers are given on."""
    journal = Journal.create(tmp_path / "j.jsonl", ABOUT)
    said: list[str] = []
    journal.on_trouble = said.append

    def full(descriptor: int, line: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        journal.keep("a", "lm", {"body": "x"})
        journal.append("end", {})
    assert len(said) == 1 and "No space left" in said[0] and journal.answer("a") is None
    journal.close()


def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    """unit: it has the file open too."""
    path = tmp_path / "j.jsonl"
    journal = Journal.create(path, ABOUT)
    before = path.read_bytes()
    if (child := os.fork()) == 0:
        journal.append("end", {})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and path.read_bytes() == before
    journal.close()


def test_a_journal_without_a_name_keeps_answers_too() -> None:
    """unit: for the workers of one process."""
    journal = Journal.temporary()
    journal.keep("a", "lm", {"body": "x"})
    assert journal.path is None and journal.answer("a")["body"] == "x"  # type: ignore[index]
    journal.close()


def test_lines_are_chained() -> None:
    """unit: the sum of each stands for all that came before."""
    first, one = encoded({"kind": "a"}, "")
    second, _ = encoded({"kind": "b"}, one)
    reader = LineReader()
    assert reader.read(first) == {"kind": "a"} and reader.read(second) == {"kind": "b"}
    with pytest.raises(DamagedLine, match="line 1"):
        LineReader().read(second)
    with pytest.raises(ValueError, match="Out of range"):
        encoded({"score": float("nan")}, "")
