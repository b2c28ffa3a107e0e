"""Process: `dspex run`, as a shell runs it: by workers of its own, and by those of a service."""

from __future__ import annotations

import json
import signal
import time

import pytest

import dspex
from tests.process.shell.conftest import Shell
from tests.support.waiting import eventually


def test_a_signature_predicts(dspex_: Shell) -> None:
    """process: the only field's value, and nothing else on standard output."""
    said = dspex_("run", "question -> answer", "question=Which river?")
    assert (said.code, said.out, said.err) == (0, "The Loire\n", "")
    assert dspex_.lm.requests[-1].inputs == {"question": "Which river?"}
    said = dspex_("run", "--json", "--kind", "chain_of_thought", "question -> answer", "question:=7", "--adapter=json")
    assert json.loads(said.out) == {"reasoning": "It is long.", "answer": "The Loire"}


@pytest.mark.parametrize("program", ["prog:MultiHop", "prog.py:MultiHop", "./prog.py:MultiHop"])
def test_a_module_of_the_current_folder_runs(dspex_: Shell, program: str) -> None:
    """process: inputs and the constructor's arguments by their types; what it prints is not its result."""
    said = dspex_("run", program, "--init", "hops=3", "question=07", "--json", "k=5", "--lm", "openai/gpt-4.1")
    assert said.code == 0, said.err
    assert json.loads(said.out) == {"answer": "The Loire", "score": 0.5, "k": 5, "hops": 3}
    assert "a module prints" in said.err
    assert {request.body["model"] for request in dspex_.lm.requests} == {"gpt-4.1"}
    assert dspex_.lm.requests[0].inputs == {"question": "07"}


def test_what_a_function_returns_is_printed(dspex_: Shell) -> None:
    """process: text as it is, the rest as JSON; from a pipe too."""
    assert dspex_("run", "prog:word", "text=hello world").out == "hello\n"
    assert json.loads(dspex_("run", "prog:shout", "text=-", stdin="hé\n").out) == {"text": "HÉ", "letters": 2}
    assert dspex_("run", "prog:word", "-", "--json", stdin='{"text": "a b"}').out == '"a"\n'


def test_fields_are_printed_as_they_stream(dspex_: Shell) -> None:
    """process: without a name where there is one; with JSON an object a line."""
    assert dspex_("run", "question -> answer", "--stream", "question=q").out == "The Loire\n"
    said = dspex_("run", "prog:MultiHop", "--stream", "question=q", "--init=hops=1")
    assert said.out.splitlines() == ["query: rivers", "answer: The Loire", "score: 0.5", "k: 3", "hops: 1"]
    lines = dspex_("run", "prog:MultiHop", "--stream", "--json", "question=q").out.splitlines()
    *chunks, last = [json.loads(line) for line in lines]
    assert {chunk["chunk"]["field"] for chunk in chunks} >= {"query", "answer"}
    assert last == {"value": {"answer": "The Loire", "score": 0.5, "k": 3, "hops": 2}}


def test_a_saved_program_runs(dspex_: Shell) -> None:
    """process: by its file; what it says of itself cannot be said again."""
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as own:
        demos = [{"question": "old", "answer": "demo"}]
        program = dspex.predictor("predict", "question -> answer", demos=demos, supervisor=own)
        dspex.Optimized(program, 1.0, None).save(dspex_.folder / "saved.json")
    said = dspex_("run", "saved.json", "question=q")
    assert (said.code, said.out) == (0, "The Loire\n"), said.err
    assert dspex_("run", "saved.json", "question=q", "--init", "a=1").code == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["prog:MultiHop"], 2, "needs the input 'question': it takes question=... [k=...]"),
        (["prog:MultiHop", "question=q", "kk=1"], 2, "takes no input 'kk'"),
        (["question -> answer", "questoin=q"], 2, "needs the input 'question'"),
        (["prog.py", "question=q"], 2, "Say what of 'prog.py' is to run: prog.py:MultiHop or prog.py:Slow"),
        (["none.py:X", "question=q"], 2, "There is no file 'none.py'"),
        (["prog", "question=q"], 2, "'prog' names no program"),
        (["question -> answer -> more", "question=q"], 2, "->"),
        (["question -> answer", "--signature", "a -> b", "question=q"], 2, "leave --signature out"),
        (["prog:MultiHop", "--kind", "predict", "question=q"], 2, "--kind is for a signature"),
        (["question -> answer", "--kind", "predit", "question=q"], 2, "Did you mean 'predict'"),
        (["prog:MultiHop", "question=@none.txt"], 2, "'none.txt' for 'question' cannot be read"),
        (["prog:MultiHop", "--init", "hops", "question=q"], 2, "'hops' is no argument"),
        (["prog:MultiHop", "--config", "none.toml", "question=q"], 2, "'none.toml' cannot be read"),
        (["prog:MultiHopp", "question=q"], 1, "Did you mean 'prog:MultiHop'"),
        (["prgo:MultiHop", "question=q"], 1, "There is no module 'prgo'"),
        (["prog:MultiHop", "--name", "nobody", "question=q"], 3, "No supervisor answers"),
        (["prog:MultiHop", "--name", "x", "--private", "question=q"], 2, "--private runs"),
        (["prog:MultiHop", "--lm", "opnai/x", "question=q"], 2, "opnai"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_costs_nothing(dspex_: Shell, words: list[str], code: int, said: str) -> None:
    """process"""
    ended = dspex_("run", *words)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert said in ended.err
    assert ended.err.startswith("dspex: ")
    assert ended.err.count("\n") == 1
    assert not dspex_.lm.requests


def test_a_program_without_a_model_says_how_to_name_one(dspex_: Shell) -> None:
    """process"""
    for program in ("prog:MultiHop", "question -> answer"):
        ended = dspex_("run", program, "question=q", DSPEX_LM="")
        assert (ended.code, ended.out) == (2, "")
        assert "--lm" in ended.err


def test_ctrl_c_ends_it_and_its_workers(dspex_: Shell) -> None:
    """process: at once, without a word, with the shells' exit code."""
    process = dspex_.start("run", "prog:Slow", "question=q")
    began = dspex_.folder / "began"
    eventually(began.exists, within=60.0, what="the module runs")
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
    assert time.monotonic() - before < 20
    began.unlink()


def test_modules_are_not_found_where_python_would_not(dspex_: Shell) -> None:
    """process: with PYTHONSAFEPATH the current folder is not searched, as for `python -m`."""
    ended = dspex_("run", "prog:word", "text=a", PYTHONSAFEPATH="1")
    assert ended.code == 1
    assert "There is no module 'prog'" in ended.err


def test_a_service_runs_what_its_pools_import(dspex_: Shell, service: str) -> None:
    """process: by its own language models, by their names; from $DSPEX_SOCKET too."""
    said = dspex_("run", "prog:MultiHop", "question=q", "--name", service, "--json", "--init=hops=1")
    assert said.code == 0, said.err
    assert json.loads(said.out) == {"answer": "The Loire", "score": 0.5, "k": 3, "hops": 1}
    assert dspex_.lm.requests[-1].body["model"] == "gpt-4o-mini"
    socket = str(dspex_.folder / "run" / f"{service}.sock")
    said = dspex_("run", "prog:MultiHop", "question=q", "--stream", "--lm", "cheap", DSPEX_SOCKET=socket)
    assert said.out.splitlines()[-4:] == ["answer: The Loire", "score: 0.5", "k: 3", "hops: 2"], said.err
    assert dspex_.lm.requests[-1].body["model"] == "gpt-4.1-nano"
    assert dspex_("run", "question -> answer", "question=q", "--name", service).out == "The Loire\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["os:system", "question=q"], 1, "There is no module 'os:system'"),
        (["./prog.py:MultiHop", "question=q"], 2, "is a file; a service runs what its pool's imports name"),
        (["prog:MultiHop", "--config", "x.toml", "question=q"], 2, "--config is for workers of this command's own"),
        (["prog:MultiHop", "--lm", "openai/other", "question=q"], 1, "no language model 'openai/other' (names: cheap"),
        (["prog:MultiHop", "quetion=q"], 2, "needs the input 'question'"),
    ],
)  # fmt: skip
def test_a_service_refuses_the_rest(dspex_: Shell, service: str, words: list[str], code: int, said: str) -> None:
    """process: what it does not import, and models that it does not have."""
    ended = dspex_("run", *words, "--name", service)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert said in ended.err
    assert not dspex_.lm.requests
