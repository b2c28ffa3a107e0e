"""Unit: options stand anywhere in a command line, and what is unknown is refused with what is near."""

from __future__ import annotations

import itertools

import click
import pytest

from dspex.cli import main
from dspex.cli.command_group import commands, loaded
from dspex.cli.command_list import LISTED, SECTIONS
from tests.support.command_words import read_words

WORDS = [["dspy", "echo"], ["--timeout", "3"], ["text=hi", "n=2"], ["--idempotent"]]
ORDERS = [order for order in itertools.permutations(range(4)) if order.index(0) < order.index(2)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_options_may_stand_anywhere_in_a_call(order: tuple[int, ...]) -> None:
    """unit: before, between and after the words, whose order alone counts."""
    given = read_words(["call", *itertools.chain.from_iterable(WORDS[at] for at in order)])
    assert (given["pool"], given["name_of_command"], given["words"]) == ("dspy", "echo", ("text=hi", "n=2"))
    assert (given["timeout"], given["idempotent"]) == (3.0, True)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--lm", "m", "p:C", "--init", "a=1", "q=x", "--json", "k=2", "--init", "b=2"],
        ["run", "p:C", "q=x", "k=2", "--json", "--init", "a=1", "--init", "b=2", "--lm", "m"],
        ["--json", "run", "--init=a=1", "--init=b=2", "--lm=m", "p:C", "q=x", "k=2"],
    ],
)
def test_a_run_is_read_alike_in_any_order(words: list[str]) -> None:
    """unit: what all commands have may come before the command's name"""
    given = read_words(words)
    assert (given["program"], given["inputs"], given["init"]) == ("p:C", ("q=x", "k=2"), ("a=1", "b=2"))
    assert (given["lm"], given["as_json"], given["stream"]) == ("m", True, False)


@pytest.mark.parametrize("words", [["status", "--watch", "2", "--json"], ["status", "--json", "--watch"]])
def test_an_option_whose_value_may_be_left_out(words: list[str]) -> None:
    """unit"""
    given = read_words(words)
    assert given["as_json"]
    assert given["watch"] == (2.0 if "2" in words else 1.0)


@pytest.mark.parametrize("words", [["--name", "web", "status"], ["status", "--name=web"], ["--name=web", "status"]])
def test_the_supervisor_is_named_before_or_after_the_command(words: list[str]) -> None:
    """unit"""
    assert read_words(words)["name"] == "web"


WRONG = [
    (["call", "dspy", "echo", "--timout", "3"], "No such option: --timout. Did you mean --timeout?"),
    (["call", "dspy", "echo", "--timout=3"], "No such option: --timout. Did you mean --timeout?"),
    (["run", "p:C", "q=x", "--jsno"], "No such option: --jsno. Did you mean --json?"),
    (["status", "-json"], "No such option: -json. Did you mean --json?"),
    (["--jsn", "status"], "No such option: --jsn. Did you mean --json?"),
    (["statsu"], "No such command: statsu. Did you mean status"),
    (["rezise", "dspy", "3"], "No such command: rezise. Did you mean resume or resize?"),
    (["xyzzy"], "No such command: xyzzy. usage: dspex"),
    (["--name", "web", "bench"], "No such option: --name."),
    (["run"], "Missing argument 'PROGRAM'"),
    (["resize", "dspy", "3", "4"], "unexpected extra argument (4)"),
    (["resize", "dspy", "-1"], "No such option: -1."),
    (["resize", "dspy", "many"], "'many' is not a valid integer range"),
    (["evaluate", "p:C", "rows.csv"], "Missing option '--metric'"),
    (["run", "p:C", "--timeout", "soon"], "'soon' is no time"),
    (["optimize", "p:C", "r", "--max-usd", "-1"], "-1.0 is not in the range"),
    (["optimize", "p:C", "r", "--max-usd", "nan"], "'nan' is no amount"),
    (["optimize", "p:C", "r", "--max-requests", "x"], "'x' is not a valid integer"),
    (["optimize", "p:C", "r", "--auto", "lite"], "'lite' is not one of"),
    (["job"], "Missing argument 'ID'"),
    (["job", "a", "--watch", "--cancel"], "choose one"),
    (["jobs", "a"], "unexpected extra argument (a)"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_what_is_wrong_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """unit: with 2, in one line that begins with the command's name"""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dspex: ")
    assert said in " ".join(err.split())


@pytest.mark.parametrize(
    "words",
    [
        ["optimize", "-o", "b.json", "p:C", "--option", "a=1", "rows", "--timeout", "1h", "--option=b=2", "--json"],
        ["optimize", "p:C", "rows", "--json", "--option", "a=1", "--option=b=2", "--output=b.json", "--timeout=60min"],
    ],
)  # fmt: skip
def test_an_optimization_is_read_alike_in_any_order(words: list[str]) -> None:
    """unit: its timeout is the job's, not each call's."""
    given = read_words(words)
    assert (given["program"], given["data"], given["option"], given["output"]) == (
        "p:C",
        "rows",
        ("a=1", "b=2"),
        "b.json",
    )
    assert (given["job_timeout"], given["as_json"], given["resume"]) == (3600.0, True, False)
    assert "timeout" not in given


def test_what_a_journal_holds_may_be_left_out() -> None:
    """unit"""
    given = read_words(["optimize", "--resume", "--journal", "j.jsonl"])
    assert (given["program"], given["data"], given["metric"], given["optimizer"]) == (None, None, None, None)


def test_every_command_is_listed_once_and_prints_json() -> None:
    """unit: in the order of the sections; groups' commands too"""
    assert sum(map(len, SECTIONS.values())) == len(LISTED)
    for name, command in commands().items():
        inner = command.commands.values() if isinstance(command, click.Group) else [command]
        assert command.name == name
        for one in inner:
            assert "--json" in {word for param in one.params for word in param.opts}, one.name


def test_a_bare_command_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """unit: with the commands in their sections"""
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    out = capsys.readouterr().err
    assert all(title in out for title in SECTIONS)
    assert all(f"  {name} " in out for name in LISTED)


def test_a_commands_help_has_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """unit"""
    for name, listed in LISTED.items():
        assert (loaded(name).short_help or "") == listed.summary
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert listed.summary[1:30] in " ".join(capsys.readouterr().out.split())
