"""Unit: what lists of jobs read from journals, without taking or changing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspex.errors import JournalError, SettingsError
from dspex.programs.optimization.job_settings import job_settings
from dspex.programs.optimization.journal import Journal
from dspex.programs.optimization.journal_lines import encoded
from dspex.programs.optimization.journal_summary import records_of, summaries_in, summary_of

ABOUT = {"id": "j1", "optimizer": "gepa", "title": "predict (a -> b)"}
SPENT = {"requests": 7, "unpriced_requests": 0, "tokens": 90, "cost_usd": 0.5}


def candidate(number: int, kind: str, score: float) -> dict[str, Any]:
    return {"number": number, "kind": kind, "score": score}


def begun(path: Path) -> Journal:
    journal = Journal.create(path, ABOUT)
    for number, kind, score in ((0, "baseline", 50.0), (1, "minibatch", 100.0), (2, "full", 75.0)):
        journal.append_candidate(candidate(number, kind, score))
    journal.spent = dict(SPENT)
    journal.keep("a", "lm", {"body": "x"})
    return journal


def test_a_journal_is_told_while_its_job_runs_and_after(tmp_path: Path) -> None:
    """unit: running while it is open, interrupted when its process has gone, and then how it ended."""
    path = tmp_path / "j1.jsonl"
    journal = begun(path)
    content = path.read_bytes()
    running = summary_of(path)
    assert (running.state, running.id) == ("running", "j1")
    row = running.row
    assert (row["best"], row["baseline"], row["trial"]) == (75.0, 50.0, 2)  # a minibatch's score is of some examples
    assert (row["requests"], row["tokens"], row["cost"]) == (7, 90, 0.5)
    journal.close()
    assert summary_of(path).state == "interrupted" and path.read_bytes() == content
    again = Journal.resume(path)  # the look has left no lock
    again.append("diverged", {"number": 1})
    again.append("end", {"state": "stopped", "message": "why", "spent": {**SPENT, "unpriced_requests": 7}})
    again.close()
    ended = summary_of(path).row
    assert (ended["state"], ended["message"], ended["trial"], ended["best"]) == ("stopped", "why", 0, 50.0)
    assert ended["cost"] is None
    again = Journal.resume(path)
    again.append("resumed", {})
    assert summary_of(path).state == "running"
    again.close()
    assert summary_of(path).state == "interrupted"


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_is_being_written_is_not_read(tmp_path: Path, cut: int) -> None:
    """unit: and stays as it is: its process may write the rest."""
    path = tmp_path / "j1.jsonl"
    begun(path).close()
    content = path.read_bytes()[:-cut]
    path.write_bytes(content)
    found = summary_of(path)
    assert (found.state, found.row["requests"], path.read_bytes()) == ("interrupted", 0, content)
    path.write_bytes(content + b"\0" * 40)  # the machine died with the file's length on its disk
    assert summary_of(path).state in ("interrupted", "damaged")


def test_whatever_a_file_holds_it_is_told(tmp_path: Path) -> None:
    """unit: also what has right checksums and another shape; the others of the folder are read."""
    good = begun(tmp_path / "good.jsonl")
    good.close()
    lines = (tmp_path / "good.jsonl").read_bytes().splitlines(keepends=True)
    odd: dict[str, Any] = {
        "empty": b"", "text": b"hello\n", "binary": bytes(range(256)),
        "swapped": b"".join([lines[0], lines[2], lines[1]]),
        "doubled": b"".join([*lines[:2], lines[1]]), "lost": b"".join([lines[0], *lines[2:]]),
    }  # fmt: skip
    for name, records in {
        "list": [{"kind": "candidate", "candidate": [1]}],
        "no score": [{"kind": "candidate", "candidate": {"kind": "full"}}],
        "no spending": [{"kind": "end", "spent": {"requests": []}}],
        "no number": [{"kind": "diverged"}],
        "deep": [{"kind": "note", "x": "[" * 5}],
    }.items():
        text, total = b"", ""
        first = {"kind": "journal", "format": "dspex-journal", "version": 1, "began": "yesterday", "id": name}
        for record in [first, *records]:
            line, total = encoded(record, total)
            text += line
        odd[name] = text
    for name, content in odd.items():
        (tmp_path / f"{name}.jsonl").write_bytes(content)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "good.jsonl")
    found = {summary.path.stem: summary for summary in summaries_in(tmp_path)}
    assert found.keys() == odd.keys() | {"good", "folder", "link"}
    for name, summary in found.items():
        row = summary.row
        expected = {"good": "interrupted", "deep": "interrupted"}.get(name, "damaged")
        assert (row["state"], bool(row["message"])) == (expected, expected == "damaged"), (name, row)
    assert summaries_in(tmp_path / "none") == []


def test_a_missing_journal_is_an_error(tmp_path: Path) -> None:
    """unit"""
    with pytest.raises(JournalError, match="cannot be opened"):
        summary_of(tmp_path / "none.jsonl")
    with pytest.raises(JournalError) as found:
        list(records_of(tmp_path))
    assert found.value.reason == "unsafe"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (3, "folder"), ({}, "folder"), ({"resume": True}, "folder"),
        ({"folder": "x", "resume": "yes"}, "true or false"),
        ({"folder": "x", "resum": True}, "Did you mean 'resume'"), ({"folder": ["x"]}, "folder"),
    ],
)  # fmt: skip
def test_a_jobs_table_that_cannot_be_is_refused(table: Any, said: str) -> None:
    """unit: with near names."""
    with pytest.raises(SettingsError, match=said):
        job_settings({"jobs": table})


def test_a_jobs_table_is_read(tmp_path: Path) -> None:
    """unit"""
    assert job_settings({}).folder is None
    found = job_settings({"jobs": {"folder": str(tmp_path), "resume": True}})
    assert (found.folder, found.resumes) == (tmp_path, True)
    assert not job_settings({"jobs": {"folder": "x"}}).resumes
