"""Process: programs on the worker route, on whichever Python and DSPy the workers have (`make check-all`).

The same for each: nothing here asks for a version's own wording, requests or engine.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM, FakeReply
from tests.versions.conftest import PYTHON

Fake = Callable[..., FakeLM]
OWN = "tests.versions.own_program"
ROWS = [{"question": f"double {number}", "answer": str(2 * number)} for number in range(6)]


def doubling(request: Any) -> str:
    return str(2 * int(request.inputs["question"].split()[-1]))


def exact(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.answer == prediction.answer)


@pytest.fixture
def python(supervisor: dspex.Supervisor) -> dict[str, Any]:
    """The options that send a program to the workers."""
    return {"supervisor": supervisor, "implementation": "python"}


@pytest.mark.parametrize("adapter", ["chat", "json", "xml"])
def test_typed_fields_in_each_format(fake: Fake, python: dict[str, Any], adapter: str) -> None:
    """process: the values, the usage and the route."""
    lm = fake(by_field={"label": "spam", "score": 0.5, "tags": [["a", "b"]]})
    signature = dspex.signature("mail -> label: Literal['spam', 'ham'], score: float, tags: list[str]")
    out = dspex.chain_of_thought(signature, lm=lm, adapter=adapter, **python)(mail="m")
    assert (out.label, out.score, out.tags) == ("spam", 0.5, ["a", "b"])
    assert out.reasoning
    assert out.usage[lm.model]["completion_tokens"] > 0
    assert len(lm.requests) == 1
    assert lm.requests[0].headers["authorization"].startswith("Bearer ")


def test_fields_stream(fake: Fake, python: dict[str, Any]) -> None:
    """process: pieces, then the prediction."""
    program = dspex.predictor("predict", "question -> answer", lm=fake(by_field={"answer": "one two three"}), **python)
    *chunks, last = program.stream(question="q")
    assert "".join(chunk.text for chunk in chunks) == "one two three" == last.answer
    assert {chunk.field for chunk in chunks} == {"answer"}


def test_several_answers(fake: Fake, python: dict[str, Any]) -> None:
    """process: n of a call's configuration."""
    lm = fake(by_field={"answer": ["one", "two"]})
    out = dspex.predictor("predict", "question -> answer", lm=lm, **python).using(config={"n": 2})(question="q")
    assert out.answer == "one"
    assert [one["answer"] for one in out.completions] == ["one", "two"]


def test_an_agent_calls_tools_of_the_host(fake: Fake, python: dict[str, Any]) -> None:
    """process: by DSPy's ReAct."""
    asked: list[str] = []

    def weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "sunny"

    turns = [
        {"next_thought": "look", "next_tool_name": "weather", "next_tool_args": {"city": "Rome"}},
        {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "r", "answer": "sunny"},
    ]
    out = dspex.react("question -> answer", tools=[weather], lm=fake(turns), **python)(question="Rome?")
    assert (out.answer, asked) == ("sunny", ["Rome"])


def test_a_module_of_the_users(fake: Fake, supervisor: dspex.Supervisor) -> None:
    """process: imported by the pool."""
    lm = fake(by_field={"answer": ["one", "two"]})
    module = dspex.predictor("tests.support.user_code:Counting", "question -> answer", lm=lm, supervisor=supervisor)
    assert module(question="q").answer == "two"


@pytest.mark.parametrize("judge", [None, "openai/fake"])
def test_an_unchanged_module_of_several_predictors(fake: Fake, supervisor: dspex.Supervisor, judge: str | None) -> None:
    """process: its own language model asks through the host; it streams, and is awaited."""
    lm = fake(by_field={"query": ["rivers", "the Loire"], "answer": "yes"}, cycle=True)
    own = dspex.module(f"{OWN}:MultiHop", lm=lm, supervisor=supervisor, judge=judge)
    out = own(question="q")
    assert (out.answer, out.notes) == ("yes", ["rivers", "the Loire"])
    assert [request.signature for request in lm.requests[1:]] == [
        "question, notes -> reasoning, query",
        "question, notes -> answer",
    ]
    assert lm.requests[-1].body.get("temperature") == (None if judge is None else 0.0)
    *chunks, last = own.stream(question="q")
    assert last.answer == "yes"
    assert any(chunk.field == "answer" for chunk in chunks)
    awaited = dspex.module(f"{OWN}:Awaited", lm=lm, supervisor=supervisor, judge=judge)
    assert asyncio.run(awaited.acall(question="q")).answer == "yes"


def test_a_class_of_the_hosts_own_is_sent_by_value(fake: Fake, supervisor: dspex.Supervisor) -> None:
    """process: a function too; by cloudpickle, which DSPy brings."""
    if sys.executable != PYTHON:
        pytest.skip("code crosses by value between interpreters of one version only")
    program = dspex.function(lambda text: text.upper(), supervisor=supervisor)
    assert program(text="hi") == "HI"


def test_refusals_keep_their_class(fake: Fake, python: dict[str, Any]) -> None:
    """process: by status and code; transient ones are sent again by the host."""
    slow = FakeReply(status=429, headers={"retry-after": "0"})
    say = {"answer": "x"}
    program = dspex.predictor("predict", "question -> answer", lm=fake([slow, say], retries=1), **python)
    assert program(question="q").answer == "x"
    too_long = {"message": "m", "code": "context_length_exceeded"}
    refusals: list[tuple[FakeReply, type[Exception]]] = [
        (FakeReply(status=401), dspex.LMAuthError),
        (FakeReply(status=400, error=too_long), dspex.LMContextWindowExceededError),
        (FakeReply(status=500), dspex.LMServerError),
    ]
    for reply, kind in refusals:
        with pytest.raises(kind):
            program.using(lm=fake([reply], retries=0, cycle=True))(question="q")
    with pytest.raises(dspex.AdapterParseError):
        program.using(lm=fake("no fields"))(question="q")


def test_a_deadline_ends_a_request(fake: Fake, python: dict[str, Any]) -> None:
    """process: the endpoint sees the client go, and the worker serves the next call."""
    lm = fake([FakeReply(hang=True), {"answer": "x"}])
    program = dspex.predictor("predict", "question -> answer", lm=lm, **python)
    with pytest.raises(dspex.CallTimeout):
        program.using(timeout=1.0)(question="q")
    lm.wait_for(lambda: lm.hung_up == 1)
    assert program(question="q").answer == "x"


def test_evaluating_with_a_metric_of_the_host(fake: Fake, python: dict[str, Any]) -> None:
    """process: every row, once."""
    lm = fake(by_field={"answer": doubling})
    program = dspex.predictor("predict", "question -> answer", lm=lm, **python)
    found = dspex.evaluate(program, ROWS, metric=exact)
    assert len(lm.requests) == len(ROWS)
    assert "100" in str(getattr(found, "score", found))


@pytest.mark.parametrize("optimizer", ["bootstrap", "miprov2"])
def test_optimizing_and_loading(fake: Fake, python: dict[str, Any], tmp_path: Any, optimizer: str) -> None:
    """process: demonstrations are found, saved, loaded and sent."""
    if optimizer == "miprov2" and subprocess.run([PYTHON, "-c", "import optuna"], check=False).returncode:
        pytest.skip("MIPROv2 needs optuna beside the workers")
    # "x" answers what MIPROv2's own predictors ask for
    names = ["observations", "summary", "program_description", "module_description", "proposed_instruction", "summary"]
    lm = fake(by_field={"answer": doubling, **dict.fromkeys(names, "x")})
    program = dspex.predictor("predict", "question -> answer", lm=lm, **python)
    options: dict[str, Any] = {"num_candidates": 2, "num_trials": 2, "auto": None} if optimizer == "miprov2" else {}
    result = dspex.optimize(program, ROWS, metric=exact, optimizer=optimizer, **options)
    result.save(tmp_path / "p.json")
    loaded = dspex.load(tmp_path / "p.json", lm=lm, **python)
    lm.requests.clear()
    assert loaded(question="double 21").answer == "42"
    if optimizer == "bootstrap":
        assert len(lm.requests[0].messages) > 2  # a demonstration is there


def test_the_native_route_says_what_it_was_compared_with(
    fake: Fake, python: dict[str, Any], dspy_there: tuple[int, ...]
) -> None:
    """process: on another version programs go to the workers, which serve them."""
    program = dspex.predictor(
        "predict", "question -> answer", lm=fake(by_field={"answer": "x"}), supervisor=python["supervisor"]
    )
    is_known = (3, 4, 1) <= dspy_there < (3, 5)
    assert program.decision.implementation == ("native" if is_known else "python")
    if not is_known:
        assert program.decision.reason is dspex.Reason.VERSIONS
        assert f"dspy {'is ' if sys.executable != PYTHON else ''}{'.'.join(map(str, dspy_there))}" in str(
            program.decision
        )
    assert program(question="q").answer == "x"


def test_a_version_that_nobody_knows_yet(fake: Fake, supervisor: dspex.Supervisor, monkeypatch: Any) -> None:
    """process: the same, where DSPy says that it is 9.0; `implementation="native"` is refused with the reason."""
    from dspex.programs.options import routing

    monkeypatch.setattr(routing, "version_problem", lambda: "dspy 9.0.0")
    lm = fake(by_field={"answer": "x"}, cycle=True)
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=supervisor)
    assert program.decision.reason is dspex.Reason.VERSIONS
    assert program(question="q").route.startswith("python:dspy")
    with pytest.raises(dspex.SettingsError, match=r"not possible for dspy.Predict: .* \(dspy 9\.0\.0\)"):
        program.using(implementation="native")(question="q")
