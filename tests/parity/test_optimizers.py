"""Parity: every optimizer comes to DSPy's own program, for a signature, an agent and a module of three predictors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import dspex
from tests.support.paths import ROOT
from tests.support.programs import optimizer_table

CALLS = {"signature": 1, "agent": 3, "module": 3}  # requests for one example


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    pools = [dspex.PoolConfig("dspy", size=1, env=env), dspex.PoolConfig("mipro", size=1, env=env)]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.mark.parity
@pytest.mark.parametrize("optimizer", optimizer_table.JOBS)
def test_an_optimizer_comes_to_dspys_program(sup: dspex.Supervisor, optimizer: str) -> None:
    """parity: the same instructions, demonstrations and score; beside DSPy's requests only those of the baseline."""
    for kind, theirs in optimizer_table.dspys(optimizer).items():
        with optimizer_table.answering() as lm:
            mine = optimizer_table.ours(optimizer, kind, lm, sup)
        assert (mine["prompts"], mine["score"]) == (theirs["prompts"], theirs["score"]), kind
        assert len(mine["prompts"]) == {"signature": 1, "agent": 2, "module": 3}[kind]
        assert mine["requests"] - theirs["requests"] == CALLS[kind] * len(optimizer_table.HELD_OUT), kind
