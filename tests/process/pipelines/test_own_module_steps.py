"""Process: a user's own module as a step of a pipeline, by name, as a class, as a program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import PipelineError
from dspex.testing import FakeLM
from tests.support.programs import own_programs

OWN = "tests.support.programs.own_programs"
ANSWERS = {"query": "q", "reasoning": "r", "answer": "Paris", "verdict": "good"}


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        yield running


@pytest.fixture(autouse=True)
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: ANSWERS) as fake:
        yield fake


@pytest.mark.parametrize("what", [f"{OWN}:MultiHop", own_programs.MultiHop])
def test_it_reads_what_its_forward_takes_and_writes_what_it_returns(
    sup: dspex.Supervisor, lm: FakeLM, what: Any
) -> None:
    """process: what follows reads that; the constructor's arguments are the step's."""
    pipe = dspex.pipeline([
        dspex.python(what, hops=3),
        dspex.native(lambda answer, queries: {"shout": f"{answer} {len(queries)}!"}),
    ])  # fmt: skip
    result = pipe.run({"question": "capital?", "other": object}, supervisor=sup, lm=lm)
    assert result["shout"] == "Paris 3!" and result["calls"] >= 1
    assert result.steps[0].route.startswith("python:dspy/")


@pytest.mark.parametrize("wrap", [dspex.python, dspex.native])
def test_a_program_without_a_signature(sup: dspex.Supervisor, lm: FakeLM, wrap: Any) -> None:
    """process: awaited as well; a missing input is named."""
    pipe = dspex.pipeline([wrap(dspex.module(f"{OWN}:MultiHop", hops=1), into="found")])
    assert pipe.run({"question": "q"}, supervisor=sup, lm=lm)["found"]["answer"] == "Paris"
    with pytest.raises(PipelineError, match="question"):
        pipe.run({"query": "q"}, supervisor=sup, lm=lm)


def test_a_signature_makes_it_a_step_like_any_other(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process"""
    pipe = dspex.pipeline([dspex.python(f"{OWN}:MultiHop", signature="question -> answer", hops=1, keep=["queries"])])
    result = pipe.run({"question": "q"}, supervisor=sup, lm=lm)
    assert (result["answer"], result["queries"]) == ("Paris", ["q"])


def test_a_value_without_a_name_needs_one(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: text, say; None writes nothing."""
    returning = dspex.module(f"{OWN}:Returning")
    run: Any = {"supervisor": sup, "lm": lm}
    assert dspex.pipeline([dspex.python(returning, into="it")]).run({"kind": "text"}, **run)["it"] == "hi"
    assert "it" not in dspex.pipeline([dspex.python(returning)]).run({"kind": "none"}, **run)
    with pytest.raises(PipelineError, match="into="):
        dspex.pipeline([dspex.python(returning)]).run({"kind": "text"}, **run)


@pytest.mark.parametrize("wrap", [dspex.python, dspex.native])
@pytest.mark.parametrize("signature", [None, "question -> answer"])
def test_a_program_runs_in_its_own_supervisor(sup: dspex.Supervisor, lm: FakeLM, wrap: Any, signature: Any) -> None:
    """process: whatever the run's is."""
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as other:
        program = dspex.module(f"{OWN}:MultiHop", hops=1, signature=signature, supervisor=other, lm=lm)
        before = sup.stats()["dspy"]["counts"]["submitted"]
        result = dspex.pipeline([wrap(program)]).run({"question": "q"}, supervisor=sup)
        assert result["answer"] == "Paris" and other.stats()["dspy"]["counts"]["submitted"] > 0
        assert sup.stats()["dspy"]["counts"]["submitted"] == before
