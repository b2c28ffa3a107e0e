"""Process: nothing of a user's runs twice unless the caller said `idempotent=True`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

import dspex
from dspex.errors import EvaluationFailed, PipelineError, SettingsError, WorkerDied
from dspex.pools.state.restarts import ENOUGH_CALLS
from dspex.testing import FakeLM
from tests.support.paths import ROOT

EFFECTS = "tests.support.programs.effects"
MAILING = f"{EFFECTS}:Mailing"


@pytest.fixture(scope="module")
def running() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig(
        "dspy", size=1, imports=[EFFECTS], env={"PYTHONPATH": str(ROOT)}, restart_budget=(100, 30.0)
    )
    with dspex.Supervisor(pools=[pool]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def sup(running: dspex.Supervisor) -> dspex.Supervisor:
    """The supervisor, whose worker has answered so many calls that its next death delays no start."""
    for _ in range(ENOUGH_CALLS):
        running.call("dspy", "ping", {})
    return running


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: {"answer": "sent"}) as fake:
        yield fake


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    return tmp_path / "sent"


def _lines(sent: Path) -> int:
    return len(sent.read_text().splitlines())


def _streamed(program: dspex.Program, path: str) -> Any:
    return list(program.stream(path=path))[-1]


ROUTES: list[Callable[[dspex.Program, str], Any]] = [
    lambda program, path: program(path=path),
    lambda program, path: asyncio.run(program.acall(path=path)),
    lambda program, path: next(iter(dspex.map(program, [{"path": path}]))).result(),
]


@pytest.mark.parametrize("route", [*ROUTES, _streamed])
def test_a_users_module_runs_once_when_its_worker_dies(
    sup: dspex.Supervisor, lm: FakeLM, sent: Path, route: Any
) -> None:
    """process: called, awaited, mapped and streamed; it is the caller who hears of it."""
    program = dspex.predictor(MAILING, "path -> answer", lm=lm, supervisor=sup)
    with pytest.raises(WorkerDied):
        route(program, str(sent))
    assert _lines(sent) == 1


@pytest.mark.parametrize(("said", "times"), [({}, 1), ({"idempotent": True}, 2)])
def test_a_row_of_an_evaluation_is_a_call_like_others(
    sup: dspex.Supervisor, lm: FakeLM, sent: Path, said: dict[str, bool], times: int
) -> None:
    """process: its worker's death is the row's error, unless the program says that it may run once more."""
    program = dspex.predictor(MAILING, "path -> answer", lm=lm, supervisor=sup, **said)
    rows = [{"path": str(sent), "answer": "sent"}]
    if said:
        assert dspex.evaluate(program, rows, "exact_match").score == 100.0
    else:
        with pytest.raises(EvaluationFailed) as failed:
            dspex.evaluate(program, rows, "exact_match")
        assert isinstance(failed.value.partial.errors[0].error, WorkerDied)
    assert _lines(sent) == times


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("is_late", [False, True])
def test_it_runs_once_more_where_the_caller_says_that_it_may(
    sup: dspex.Supervisor, lm: FakeLM, sent: Path, route: Any, is_late: bool
) -> None:
    """process: said where it is made, or by `using`."""
    said = {"idempotent": True}
    program = dspex.predictor(MAILING, "path -> answer", lm=lm, supervisor=sup, **({} if is_late else said))
    program = program.using(**said) if is_late else program
    assert route(program, str(sent)).answer == "sent" and _lines(sent) == 2


@pytest.mark.parametrize(("said", "times"), [({}, 1), ({"idempotent": True}, 2)])
def test_a_reward_over_there_is_a_users_too(
    sup: dspex.Supervisor, lm: FakeLM, sent: Path, said: dict[str, bool], times: int
) -> None:
    """process: best_of_n whose reward the worker holds."""
    program = dspex.best_of_n(
        "path -> answer", reward_fn=f"{EFFECTS}:rewarding", N=1, threshold=1.0, lm=lm, supervisor=sup, **said
    )
    if said:
        assert program(path=str(sent)).answer == "sent"
    else:
        with pytest.raises(WorkerDied):
            program(path=str(sent))
    assert _lines(sent) == times


@pytest.mark.parametrize(("options", "times"), [({}, 1), ({"retry": 1}, 2)])
@pytest.mark.parametrize("wraps", [dspex.python, dspex.native])
def test_a_pipelines_step_obeys_the_same_rule(
    sup: dspex.Supervisor, lm: FakeLM, sent: Path, options: dict[str, Any], times: int, wraps: Any
) -> None:
    """process: `retry=` is the caller's word; the default is none for a user's module."""
    program = dspex.predictor(MAILING, "path -> answer", lm=lm)
    steps = dspex.pipeline([wraps(program, **options)])
    if times == 2:
        assert steps.run({"path": str(sent)}, supervisor=sup)["answer"] == "sent"
    else:
        with pytest.raises(PipelineError) as failed:
            asyncio.run(steps.arun({"path": str(sent)}, supervisor=sup))
        assert isinstance(failed.value.causes[0], WorkerDied)
    assert _lines(sent) == times


@pytest.mark.parametrize(("said", "answers"), [({}, True), ({"idempotent": False}, False)])
def test_what_is_made_of_requests_alone_runs_once_more_by_itself(
    sup: dspex.Supervisor, said: dict[str, bool], answers: bool
) -> None:
    """process: dspy.Predict in a worker that is killed while it asks; `idempotent=False` takes that away."""
    asked: list[int] = []

    def answer(messages: Any) -> Any:
        asked.append(1)
        if len(asked) == 1:
            os.kill(sup.stats()["dspy"]["workers"][0]["pid"], signal.SIGKILL)
        return {"answer": "there"}

    with FakeLM(answer) as lm:
        program = dspex.predictor(
            "predict", "question -> answer", lm=lm, supervisor=sup, implementation="python", **said
        )
        if answers:
            assert program(question="q").answer == "there"
        else:
            with pytest.raises(WorkerDied):
                program(question="q")


def _look_up(query: str) -> str:
    return query


class Aliased(pydantic.BaseModel):
    """Only an import can stand for it in a worker."""

    name: str = pydantic.Field(alias="called")


class Plain(pydantic.BaseModel):
    name: str


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda **how: dspex.predictor("predict", "q -> a", **how), True),
        (lambda **how: dspex.chain_of_thought("q -> a", **how), True),
        (lambda **how: dspex.predictor("multi_chain_comparison", "q -> a", **how), True),
        (lambda **how: dspex.majority("q -> a", **how), True),
        (lambda **how: dspex.best_of_n("q -> a", reward_fn="exact_match", **how), True),
        (
            lambda **how: dspex.predictor(
                "predict", dspex.signature("q -> a: Plain", custom_types={"Plain": Plain}), **how
            ),
            True,
        ),
        (
            lambda **how: dspex.predictor(
                "predict", dspex.signature("q -> a: Aliased", custom_types={"Aliased": Aliased}), **how
            ),
            False,
        ),
        (lambda **how: dspex.react("q -> a", [_look_up], **how), False),
        (lambda **how: dspex.react("q -> a", [], **how), False),
        (lambda **how: dspex.predictor(MAILING, "q -> a", **how), False),
        (lambda **how: dspex.majority("q -> a", module=MAILING, **how), False),
        (lambda **how: dspex.majority("q -> a", normalize=str.lower, **how), False),
        (lambda **how: dspex.best_of_n("q -> a", reward_fn=lambda i, o: 1.0, **how), False),
        (lambda **how: dspex.refine("q -> a", reward_fn=f"{EFFECTS}:rewarding", **how), False),
        (lambda **how: dspex.assertions("q -> a", [lambda i, o: True], **how), False),
        (lambda **how: dspex.rag(lambda q, k: [], "q -> a", **how), False),
        (lambda **how: dspex.rag("dspy.ColBERTv2", "q -> a", url="http://127.0.0.1:9", **how), False),
    ],
)
def test_every_kind_says_whether_it_may_repeat(make: Any, expected: bool) -> None:
    """unit: of itself only what is made of LM requests alone; the caller's word goes over it, and must be a bool."""
    program = make()
    assert program.may_repeat is expected
    for word in (True, False):
        assert make(idempotent=word).may_repeat is program.using(idempotent=word).may_repeat is word
        assert f"idempotent={word}" in repr(make(idempotent=word))
    for word in ("yes", 1, 0, []):
        with pytest.raises(SettingsError) as refused:
            program.using(idempotent=word)
        assert refused.value.key == "idempotent"


def test_the_word_is_checked_and_taken_where_programs_are_called_at_once() -> None:
    """unit: predict(), retrieval steps."""
    with pytest.raises(SettingsError, match="idempotent"):
        dspex.predict("q -> a", {"q": "x"}, idempotent="yes", lm="openai/none")
    with pytest.raises(SettingsError, match="idempotent"):
        dspex.python("dspy.ColBERTv2", url="http://127.0.0.1:9", idempotent=1)
    assert dspex.python("dspy.ColBERTv2", url="http://127.0.0.1:9").retries() == 0
    assert dspex.python("dspy.ColBERTv2", url="http://127.0.0.1:9", idempotent=True).retries() == 1


def test_an_optimizing_step_is_not_paid_twice_unasked() -> None:
    """unit: its metric is the user's, and so is the money."""
    step = dspex.python(
        "dspy.LabeledFewShot", signature="q -> a", trainset=[{"q": "x", "a": "y"}], metric="exact_match"
    )
    assert step.retries() == 0
