"""Unit: options stand anywhere in a command line, and what is unknown is refused."""

from __future__ import annotations

import itertools

import pytest

from dspex.cli.parser import parser

WORDS = [["dspy", "echo"], ["--timeout", "3"], ["text=hi", "n=2"], ["--idempotent"]]
ORDERS = [order for order in itertools.permutations(range(4)) if order.index(0) < order.index(2)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_options_may_stand_anywhere_in_a_call(order: tuple[int, ...]) -> None:
    """unit: before, between and after the words, whose order alone counts."""
    options = parser().parse_args(["call", *itertools.chain.from_iterable(WORDS[at] for at in order)])
    assert (options.pool, options.command, options.arguments) == ("dspy", "echo", ["text=hi", "n=2"])
    assert (options.timeout, options.idempotent) == (3.0, True)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--lm", "m", "p:C", "--init", "a=1", "q=x", "--json", "k=2", "--init", "b=2"],
        ["run", "p:C", "q=x", "k=2", "--json", "--init", "a=1", "--init", "b=2", "--lm", "m"],
        ["--debug", "run", "--json", "--init=a=1", "--init=b=2", "--lm=m", "p:C", "q=x", "k=2"],
    ],
)
def test_a_run_is_read_alike_in_any_order(words: list[str]) -> None:
    """unit"""
    options = parser().parse_args(words)
    assert (options.program, options.inputs, options.init) == ("p:C", ["q=x", "k=2"], ["a=1", "b=2"])
    assert (options.lm, options.json, options.stream) == ("m", True, False)


@pytest.mark.parametrize("words", [["status", "--watch", "2", "--json"], ["status", "--json", "--watch"]])
def test_an_option_whose_value_may_be_left_out(words: list[str]) -> None:
    """unit"""
    options = parser().parse_args(words)
    assert options.json
    assert options.watch == (2.0 if "2" in words else 1.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "p:C", "q=x", "--jsno"], "unrecognized arguments: --jsno"),
        (["call", "dspy", "--timeout", "3"], "the following arguments are required: command"),
        (["run"], "the following arguments are required: PROGRAM"),
        (["resize", "dspy", "3", "4"], "unrecognized arguments: 4"),
        (["evaluate", "p:C", "rows.csv"], "--metric"),
        (["run", "p:C", "--timeout", "soon"], "is no time"),
    ],
)
def test_what_is_wrong_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """unit"""
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["optimize", "-o", "b.json", "p:C", "--option", "a=1", "rows", "--timeout", "1h", "--option=b=2", "--json"],
        ["optimize", "p:C", "rows", "--json", "--option", "a=1", "--option=b=2", "--output=b.json", "--timeout=60min"],
    ],
)  # fmt: skip
def test_an_optimization_is_read_alike_in_any_order(words: list[str]) -> None:
    """unit: its timeout is the job's, not each call's."""
    options = parser().parse_args(words)
    assert (options.program, options.data, options.option, options.output) == (
        "p:C",
        "rows",
        ["a=1", "b=2"],
        "b.json",
    )
    assert (options.job_timeout, options.timeout, options.json, options.resume) == (3600.0, None, True, False)


def test_what_a_journal_holds_may_be_left_out() -> None:
    """unit"""
    options = parser().parse_args(["optimize", "--resume", "--journal", "j.jsonl"])
    assert (options.program, options.data, options.metric, options.optimizer) == (None, None, None, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimize", "p:C", "r", "--max-usd", "-1"], "is no amount"),
        (["optimize", "p:C", "r", "--max-usd", "nan"], "is no amount"),
        (["optimize", "p:C", "r", "--max-requests", "x"], "no whole number"),
        (["optimize", "p:C", "r", "--auto", "lite"], "invalid choice"),
        (["job"], "required: ID"),
        (["job", "a", "--watch", "--cancel"], "not allowed with"),
        (["jobs", "a"], "unrecognized arguments: a"),
    ],
)
def test_what_is_wrong_with_jobs_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """unit"""
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert said in capsys.readouterr().err
