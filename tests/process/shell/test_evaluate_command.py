"""Process: `dspex evaluate`, as a shell runs it."""

from __future__ import annotations

import json

import pytest

from tests.process.shell.conftest import Shell

ROWS = [{"question": "a", "answer": "the loire"}, {"question": "b", "answer": "no"}]


@pytest.fixture(autouse=True)
def rows(dspex_: Shell) -> None:
    folder = dspex_.folder
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (folder / "rows.csv").write_text("question,answer,k\n07,The Loire,4\n")
    (folder / "bad.jsonl").write_text('{"question": "a", "answer": "x"}\n{"q": 1}\n')


def test_a_score_is_printed_on_one_line(dspex_: Shell) -> None:
    """process: of a signature, natively, and of a module."""
    for program in ("question -> answer", "prog:MultiHop"):
        said = dspex_("evaluate", program, "--metric", "exact_match", "rows.jsonl")
        assert said.code == 0, said.err
        assert said.out.startswith("exact_match 50.0 (9.5 to 90.5), 2 rows, ")
        assert said.out.count("\n") == 1
        assert said.err == "" if "->" in program else "a module prints" in said.err


def test_rows_of_a_table_have_their_types(dspex_: Shell) -> None:
    """process: a metric of the current folder, inputs by name, every row in JSON."""
    words = ["evaluate", "prog:MultiHop", "rows.csv", "--inputs", "question,k", "--metric", "prog:close", "--json"]
    said = dspex_(*words, "--num-threads", "2")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["score"], found["metric"], found["total"], found["failed"]) == (50.0, "close", 1, 0)
    [row] = found["rows"]
    assert (row["place"], row["score"], row["error"]) == ("line 2", 0.5, None)
    assert row["prediction"] == {"answer": "The Loire", "score": 0.5, "k": 4, "hops": 2}
    assert dspex_.lm.requests[0].inputs == {"question": "07"}
    assert found["usage"]["openai/gpt-4o-mini"]["total_tokens"] > 0


def test_a_service_evaluates_too(dspex_: Shell, service: str) -> None:
    """process: over its workers, with its models."""
    words = ["evaluate", "prog:MultiHop", "-", "--metric", "exact_match", "--name", service, "--lm", "cheap"]
    said = dspex_(*words, "--limit", "1", stdin="\n".join(map(json.dumps, ROWS)))
    assert said.out.startswith("exact_match 100.0 "), said.err
    assert {request.body["model"] for request in dspex_.lm.requests} == {"gpt-4.1-nano"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prog:MultiHop", "bad.jsonl", "--metric", "exact_match"], "bad.jsonl, line 2: it lacks the input 'question'"),
        (["prog:MultiHop", "none.jsonl", "--metric", "exact_match"], "'none.jsonl' cannot be read"),
        (["prog:MultiHop", "rows.jsonl", "--metric", "exact_mach"], "exact_mach"),
        (["prog:MultiHop", "rows.jsonl", "--metric", "prog:none"], "There is no metric 'prog:none'"),
        (["prog:MultiHop", "rows.jsonl", "--metric", "none:close"], "There is no module 'none'"),
        (["prog:MultiHop", "rows.jsonl", "--metric", "prog:PI"], "There is no metric 'prog:PI'"),
        (["question -> label", "rows.jsonl", "--metric", "exact_match"], "nothing to compare in rows.jsonl, line 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_before_anything_is_paid(dspex_: Shell, words: list[str], said: str) -> None:
    """process: in one line, with the line of the file."""
    ended = dspex_("evaluate", *words)
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert not dspex_.lm.requests


def test_rows_that_fail_are_named_by_their_line(dspex_: Shell) -> None:
    """process: all of them: no score, and the exit code of a failure."""
    ended = dspex_("evaluate", "prog:shout", "rows.jsonl", "--metric", "prog:close", "--inputs", "question")
    assert ended.code in (1, 2)
    assert "question" in ended.err
    ended = dspex_("evaluate", "question -> other", "rows.jsonl", "--metric", "prog:close", "--lm", "openai/x")
    assert ended.code == 1
    assert "rows.jsonl, line 1: " in ended.err
