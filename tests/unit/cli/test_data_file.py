"""Unit: the rows of a data file, and what is said of rows that are none."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from dspex.cli.data_file import read_data
from dspex.cli.shell_program import InputRules
from dspex.errors import InvalidInput

RULES = InputRules(("question", "k"), frozenset({"question"}), frozenset({"question"}))
ROWS = [{"question": "é", "k": 3}, {"question": "y", "k": [1]}]


def written(folder: Path, name: str, data: str | bytes) -> str:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"),
        ("rows.JSONL", "\ufeff" + "\r\n".join(json.dumps(row) for row in ROWS)),
        ("rows.json", json.dumps(ROWS, indent=2)),
        ("rows.csv", 'question,k\né,3\n"y","[1]"\n'),
    ],
)
def test_rows_are_read_from_each_kind(tmp_path: Path, name: str, text: str) -> None:
    """unit: blank lines, byte order marks and line ends aside; in CSV an input's type says what a text means."""
    data = read_data(written(tmp_path, name, text), None)
    assert data.examples(["question", "k"], RULES) == ROWS
    assert read_data(str(tmp_path / name), 1).examples(["question"], RULES) == [
        {**ROWS[0], "k": data.rows[0].fields["k"]}
    ]


def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"question": "x"}\n'))
    assert read_data("-", None).place(0) == "standard input, line 1"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", '{"q": 1}\n\n{"q": 2\n', r"a\.jsonl, line 3: it is not valid JSON"),
        ("a.jsonl", '{"q": 1}\n[1]\n', r"a\.jsonl, line 2: it is a list, and a row is an object"),
        ("a.jsonl", "\n \n", r"a\.jsonl holds no rows"),
        ("a.json", "{", r"a\.json is not valid JSON"),
        ("a.json", '{"rows": []}', r"a\.json holds no list of objects but an object"),
        ("a.json", '[{"q": 1}, "x"]', r"a\.json, row 2: it is a text"),
        ("a.csv", "q,a\n1,2\n3\n", r"a\.csv, line 3: it has 1 columns, and the header 2"),
        ("a.csv", 'q,a\n"x\ny",2\n"z,1\n', r"a\.csv, line \d: it is not valid CSV"),
        ("a.csv", "q,q\n1,2\n", r"a\.csv, line 1: two columns have one name"),
        ("a.csv", "q,a\n", r"a\.csv holds no rows"),
        ("a.txt", "x", r"is no \.jsonl, \.json or \.csv file"),
        ("a.jsonl", b"\xff\xfe", r"is not text in UTF-8"),
    ],
)
def test_rows_that_are_none_are_named_by_their_line(tmp_path: Path, name: str, data: str | bytes, said: str) -> None:
    """unit: before anything is asked."""
    with pytest.raises(InvalidInput, match=said):
        read_data(written(tmp_path, name, data), None)


def test_a_row_without_an_input_is_named(tmp_path: Path) -> None:
    """unit: and a file that is not there."""
    data = read_data(written(tmp_path, "a.jsonl", '{"question": "x"}\n{"q": 1, "a": 2}\n'), None)
    with pytest.raises(InvalidInput, match=r"a\.jsonl, line 2: it lacks the input 'question'; it has q, a"):
        data.examples(["question"], RULES)
    with pytest.raises(InvalidInput, match=r"cannot be read: No such file or directory"):
        read_data(str(tmp_path / "none.csv"), None)
