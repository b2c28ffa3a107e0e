"""Process: several programs answer by their own routes, and one answer is made of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import InvalidInput, SettingsError, UnknownName
from dspex.testing import FakeLM
from tests.support.paths import ROOT

LIKE_IT = {"": {"answer": "the paris!"}}
ROWS = [{"question": "q", "answer": "a"}]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    pools = [dspex.PoolConfig("dspy", size=1, env=env), dspex.PoolConfig("mipro", size=1, env=env)]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def lms() -> Iterator[list[FakeLM]]:
    with FakeLM({"": {"answer": "Rome"}}) as one, FakeLM({"": {"answer": "Paris"}}) as two, FakeLM(LIKE_IT) as three:
        yield [one, two, three]


def members(lms: list[FakeLM], sup: dspex.Supervisor, **options: Any) -> list[Any]:
    return [dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, **options) for lm in lms]


def test_the_commonest_answer_wins_on_every_route(sup: dspex.Supervisor, lms: list[FakeLM]) -> None:
    """process: natively, in workers, and mixed; the decision says where the first that is not native runs."""
    native, remote = members(lms, sup), members(lms, sup, implementation="python")
    for programs, route in ((native, "native"), (remote, "python"), ([native[0], *remote[1:]], "python")):
        asked = dspex.ensemble(programs)
        assert asked.decision.implementation == route
        assert asked(question="q").answer == "Paris" and asyncio.run(asked.acall(question="q")).answer == "Paris"
    assert [len(lm.requests) for lm in lms] == [6, 6, 6]


def test_an_answer_counts_what_all_used(sup: dspex.Supervisor, lms: list[FakeLM]) -> None:
    """process"""
    out = dspex.ensemble(members(lms, sup))(question="q")
    assert sum(used["total_tokens"] for used in out.usage.values()) > 0 and len(out.usage) >= 1
    *_, last = dspex.ensemble(members(lms, sup)).stream(question="q")
    assert last.answer == "Paris"


def test_functions_and_sizes_are_the_users(sup: dspex.Supervisor, lms: list[FakeLM]) -> None:
    """process: `reduce_fn` gets the predictions in order; `size` are asked, drawn anew for each call."""
    programs = members(lms, sup)
    assert dspex.ensemble(programs, reduce_fn=lambda found: found[0])(question="q").answer == "Rome"
    before = sum(len(lm.requests) for lm in lms)
    dspex.ensemble(programs, size=2)(question="q")
    assert sum(len(lm.requests) for lm in lms) == before + 2
    other = dspex.ensemble(programs).using(lm=lms[0])
    assert other(question="q").answer == "Rome"


def test_what_cannot_be_is_refused(sup: dspex.Supervisor, lms: list[FakeLM], tmp_path: Any) -> None:
    """process: and nobody is asked."""
    programs = members(lms, sup)
    cases: list[tuple[Any, dict[str, Any], type[Exception]]] = [
        ([], {}, InvalidInput),
        (["question -> answer"], {}, InvalidInput),
        (programs, {"size": 4}, InvalidInput),
        (programs, {"size": True}, InvalidInput),
        (programs, {"field": "reply"}, UnknownName),
        (programs, {"reduce_fn": lambda: None}, SettingsError),
        (programs, {"reduce_fn": 5}, SettingsError),
        (programs, {"reduce_fn": dspex.majority_of, "field": "answer"}, SettingsError),
    ]
    for given, options, kind in cases:
        with pytest.raises(kind):
            dspex.ensemble(given, **options)
    assert not any(lm.requests for lm in lms)
    with pytest.raises(SettingsError, match="optimize"):
        dspex.optimize(
            dspex.ensemble(programs), [{"question": "q", "answer": "a"}], metric="exact_match", optimizer="copro"
        )
    assert not any(lm.requests for lm in lms)
    with pytest.raises(SettingsError, match="gives one"):
        dspex.ensemble(programs, reduce_fn=lambda found: len(found))(question="q")  # type: ignore[arg-type,return-value]
