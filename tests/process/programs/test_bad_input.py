"""Contract: what a user does wrong gets a clear error, at once, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex import errors
from dspex.testing import FakeLM, FakeReply


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture(autouse=True)
def _nothing_is_lost(sup: dspex.Supervisor) -> Iterator[None]:
    yield
    assert sup.call("dspy", "ping", timeout=30)["worker"] == "dspy/0"
    assert sup.stats()["dspy"]["queued"] == 0


def test_unknown_pool_lists_the_near_names(sup: dspex.Supervisor) -> None:
    with pytest.raises(errors.UnknownName, match="Did you mean 'dspy'"):
        sup.call("dspi", "ping")


def test_unknown_command_lists_the_near_names(sup: dspex.Supervisor) -> None:
    with pytest.raises(errors.UnknownName, match="Did you mean 'retrieve'"):
        sup.call("dspy", "retreive")


@pytest.mark.parametrize("kind", ["predicc", "dspy.ChainOfThoughts"])
def test_unknown_module_lists_the_near_names(kind: str) -> None:
    with pytest.raises(errors.UnknownName, match="Did you mean"):
        dspex.predictor(kind, "q -> a")


def test_unknown_option_of_a_module_is_named(sup: dspex.Supervisor) -> None:
    with FakeLM([{"a": "x"}]) as lm, pytest.raises(errors.UnknownName, match="max_iter"):
        dspex.react("q -> a", tools=[], max_iterz=3, lm=lm, supervisor=sup)(q="x")


def test_unknown_option_of_an_lm_is_named() -> None:
    with pytest.raises(errors.UnknownName, match="temperature"):
        dspex.LM("openai/gpt-4o-mini", temprature=0.1)


@pytest.mark.parametrize(
    "text", ["question answer", "q -> a: lst[str]", "q -> a: this", "q, q -> a", "q -> a: str = 'x'"]
)
def test_malformed_signature_says_where(text: str) -> None:
    with pytest.raises(errors.SignatureError) as caught:
        dspex.signature(text)
    assert text in str(caught.value)


def test_no_lm_configured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSPEX_LM", raising=False)
    monkeypatch.setattr("dspex.defaults._defaults", type(dspex.defaults._defaults)())
    with pytest.raises(errors.NotConfigured, match=r"dspex\.configure"):
        dspex.predict("question -> answer", {"question": "q"})


@pytest.mark.parametrize("route", ["native", "python"])
def test_wrong_key_is_an_auth_error_without_the_key(sup: dspex.Supervisor, route: str) -> None:
    reply = FakeReply(status=401, error="Incorrect API key provided: sk-secret-0123456789")
    with FakeLM([reply], api_key="sk-secret-0123456789") as lm, pytest.raises(errors.LMAuthError) as caught:
        dspex.predict("question -> answer", {"question": "q"}, lm=lm, implementation=route, supervisor=sup)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("route", ["native", "python"])
def test_endpoint_down_is_a_transport_error(sup: dspex.Supervisor, route: str) -> None:
    with FakeLM([]) as gone:
        base = gone.api_base
    lm = dspex.LM("openai/any", api_base=base, api_key="k", retries=0)
    with pytest.raises(errors.LMTransportError):
        dspex.predict("question -> answer", {"question": "q"}, lm=lm, implementation=route, supervisor=sup)


@pytest.mark.parametrize("route", ["native", "python"])
def test_endpoint_that_hangs_ends_at_the_deadline(sup: dspex.Supervisor, route: str) -> None:
    with FakeLM([FakeReply(hang=True)], retries=0, timeout=600) as lm, pytest.raises(TimeoutError):
        dspex.predict("question -> answer", {"question": "q"}, lm=lm, implementation=route, supervisor=sup, timeout=0.5)


@pytest.mark.parametrize("route", ["native", "python"])
def test_half_a_surrogate_pair_is_refused_on_both_routes(sup: dspex.Supervisor, route: str) -> None:
    """I2: no provider can receive it."""
    with FakeLM([{"a": "x"}]) as lm:
        with pytest.raises((errors.EncodeError, errors.InvalidInput)):
            dspex.predict("q: Any -> a", {"q": "\ud800"}, lm=lm, implementation=route, supervisor=sup)
        assert lm.requests == []


def test_an_input_that_cannot_be_pickled_reaches_no_worker(sup: dspex.Supervisor) -> None:
    """I2: natively it is shown by its str, as in DSPy; for a worker it is refused before anything is sent."""
    with FakeLM([{"a": "x"}]) as lm:
        with pytest.raises(errors.EncodeError, match=r"'?q'?"):
            dspex.predict("q: Any -> a", {"q": threading.Lock()}, lm=lm, implementation="python", supervisor=sup)
        assert lm.requests == []
        assert dspex.predict("q: Any -> a", {"q": threading.Lock()}, lm=lm, implementation="native").a == "x"


def test_a_hundred_megabytes_are_refused_by_the_sender(sup: dspex.Supervisor) -> None:
    with pytest.raises(errors.FrameTooLarge, match="16,777,216"):
        sup.call("dspy", "echo", {"text": "x" * 100_000_000})


def test_a_tool_that_raises_becomes_an_observation_and_the_agent_goes_on(sup: dspex.Supervisor) -> None:
    def broken(city: str) -> str:
        raise RuntimeError("the weather service is down")

    steps = [
        {"next_thought": "t", "next_tool_name": "broken", "next_tool_args": {"city": "Rome"}},
        {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "r", "answer": "unknown"},
    ]
    with FakeLM(steps) as lm:
        out = dspex.react("question -> answer", tools=[broken], lm=lm, supervisor=sup)(question="Weather?")
    assert out.answer == "unknown"
    assert "the weather service is down" in str(out.trajectory)


def test_a_metric_that_raises_fails_the_optimization_and_says_so(sup: dspex.Supervisor) -> None:
    def broken(example: Any, prediction: Any, trace: Any = None) -> float:
        raise ValueError("no such field")

    trainset = [{"question": f"q{i}", "answer": "a"} for i in range(4)]
    with FakeLM(
        lambda messages: {"answer": "a", "proposed_instruction": "x", "observations": "o", "summary": "s"}
    ) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
        with pytest.raises((errors.OptimizationFailed, errors.RemoteError), match=r"metric|no such field"):
            dspex.optimize(program, trainset, metric=broken, num_candidates=2, num_trials=1, minibatch=False)


def test_a_pipeline_with_clashing_keys_is_refused_when_it_is_made() -> None:
    """P3"""
    one = dspex.native(lambda question: {"found": 1}, writes=["found"])
    two = dspex.native(lambda question: {"found": 2}, writes=["found"])
    with pytest.raises(errors.KeyClash, match="found"):
        dspex.pipeline([dspex.parallel([one, two])])


def test_missing_optuna_is_said_before_anything_is_spent(tmp_path: Path) -> None:
    (tmp_path / "without_optuna.py").write_text("import sys\nsys.modules['optuna'] = None  # as if not installed\n")
    mipro = dspex.PoolConfig("mipro", size=1, imports=["without_optuna"], path=[str(tmp_path)])
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), mipro]) as sup, FakeLM([]) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
        with pytest.raises(errors.MissingDependency, match="optuna"):
            dspex.optimize(program, [{"question": "q", "answer": "a"}] * 4, metric="exact_match")
        assert lm.requests == []


ANSWERS = [
    ("q -> label: Literal['spam', 'ham'], score: float", {"label": "neither", "score": "0.5"}, "'label' does not fit"),
    ("q -> label: Literal['spam', 'ham'], score: float", {"label": "ham", "score": "much"}, "'score' does not fit"),
    ("q -> label: str, score: float", {"label": "ham"}, "lacks 'score'"),
    ("q -> label, score", {"other": "x"}, "lacks 'label', 'score'"),
]


@pytest.mark.parametrize("implementation", ["native", "python"])
@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize(("sig", "answer", "said"), ANSWERS)
def test_an_answer_that_cannot_be_read_says_what_is_wrong_with_it(
    sup: dspex.Supervisor, implementation: Any, adapter: Any, sig: str, answer: dict[str, str], said: str
) -> None:
    """The field, and whether it is not there or does not fit; the model's words are in the facts alone."""
    with FakeLM({"": answer}) as lm:
        how: Any = {"lm": lm, "supervisor": sup, "implementation": implementation, "adapter": adapter}
        with pytest.raises(errors.AdapterParseError, match=said) as unread:
            dspex.predictor("predict", sig, **how)(q="x")
    assert "neither" not in str(unread.value) and "much" not in str(unread.value)
