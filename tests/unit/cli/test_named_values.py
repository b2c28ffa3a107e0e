"""Unit: a program's inputs from the words of a command line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dspex.cli.named_values import NamedValue, read_words
from dspex.cli.shell_program import InputRules
from dspex.errors import InvalidInput

RULES = InputRules(("question", "k", "tags"), frozenset({"question"}), frozenset({"question"}))


def values(*words: str, rules: InputRules = RULES) -> dict[str, object]:
    return rules.read(read_words(words))


def test_text_stays_text_and_the_rest_is_json_where_it_can_be() -> None:
    """unit: what an input is decides what name=value means."""
    assert values("question=07", "k=5", 'tags=["a"]') == {"question": "07", "k": 5, "tags": ["a"]}
    assert values("question=true", "k=five") == {"question": "true", "k": "five"}
    assert values("question=a=b", "k=") == {"question": "a=b", "k": ""}


def test_json_is_json_whatever_takes_it() -> None:
    """unit: name:=JSON, and one object for all."""
    assert values("question:=42", 'k:="5"') == {"question": 42, "k": "5"}
    assert values('{"question": "x", "k": null}') == {"question": "x", "k": None}
    with pytest.raises(InvalidInput, match=r"The value of k:= is not valid JSON"):
        values("question=x", "k:=five")


def test_files_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: @file as it is, '-' without the end of its last line, @@ for a text's own @."""
    (tmp_path / "q.txt").write_text("two\nlines\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("from stdin\n"))
    assert values(f"question=@{tmp_path}/q.txt", "tags=-") == {"question": "two\nlines\n", "tags": "from stdin"}
    assert values("question=@@home") == {"question": "@home"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"question": "x"}'))
    assert values("-") == {"question": "x"}
    monkeypatch.setattr("sys.stdin", io.StringIO("[1]"))
    with pytest.raises(InvalidInput, match="must be one JSON object"):
        values("-")
    with pytest.raises(InvalidInput, match=r"The file '/no/such' for 'question' cannot be read: No such file"):
        values("question=@/no/such")
    (tmp_path / "raw").write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="is not text in UTF-8"):
        values(f"question=@{tmp_path}/raw")
    monkeypatch.setattr("sys.stdin", io.StringIO("x"))
    with pytest.raises(InvalidInput, match="Only one value can come from standard input"):
        values("question=-", "k=-")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InvalidInput, match="which is closed"):
        values("question=-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["question"], "'question' is no input: write name=value"),
        (["=x"], "is no input"),
        (["2=x"], "is no input"),
        (["question=x", "question=y"], "The input 'question' is given twice"),
        ([], r"needs the input 'question': it takes question=... \[k=...\] \[tags=...\]"),
        (["question=x", "kk=3"], "takes no input 'kk': it takes"),
        (["{broken"], "The inputs are not valid JSON"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(words: list[str], said: str) -> None:
    """unit"""
    with pytest.raises(InvalidInput, match=said) as refused:
        values(*words)
    assert "\n" not in str(refused.value)


def test_a_program_that_takes_anything_takes_text() -> None:
    """unit: of names that it does not declare."""
    assert values("other=5", rules=InputRules((), frozenset(), frozenset(), takes_any=True)) == {"other": "5"}
    assert NamedValue("5", is_json=False).read(as_text=False) == 5
