"""Parity: what is seen of a call is what DSPy shows: the text of a history, prompts, names, callbacks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY
from dspy.utils.callback import BaseCallback

import dspex
from dspex.lm.history_text import text_of
from dspex.testing import FakeLM
from tests.support.programs.seen_programs import TwoSteps

OWN = "tests.support.programs.seen_programs"
ANSWERS = {"reasoning": "because", "answer": "Paris"}
HOOKS = [
    f"on_{kind}_{when}" for kind in ("module", "lm", "adapter_format", "adapter_parse") for when in ("start", "end")
]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        yield running


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """A module's supervisor starts its workers when a test first needs them."""


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: ANSWERS) as fake:
        yield fake


@pytest.fixture
def theirs(lm: FakeLM) -> dspy.LM:
    return dspy.LM("openai/fake", api_base=lm.lm.api_base, api_key=lm.lm.api_key, cache=False)


def test_a_history_reads_as_dspys(lm: FakeLM, theirs: dspy.LM, sup: dspex.Supervisor) -> None:
    """parity: on both routes, but for the time; of several requests and of one."""
    demos = [{"question": "1+1", "answer": "2"}]
    predictor = dspy.Predict("question -> answer")
    predictor.demos = demos
    with dspy.context(lm=theirs, adapter=dspy.ChatAdapter()):
        for question in ("one", "two"):
            predictor(question=question)
    said = io.StringIO()
    dspy.inspect_history(2, file=said)
    times = [entry["timestamp"] for entry in GLOBAL_HISTORY[-2:]]
    for route in ("native", "python"):
        ours = dspex.predictor("predict", "question -> answer", lm=lm.lm, supervisor=sup, demos=demos, history=True)
        ours = ours.using(implementation=route)  # type: ignore[arg-type]
        for question in ("one", "two"):
            ours(question=question)
        text = text_of(ours.history)
        for entry, time in zip(ours.history, times, strict=True):
            text = text.replace(entry.time.isoformat(), time)
        assert text == said.getvalue()


def test_a_module_is_traced_and_rendered_as_dspy_runs_it(lm: FakeLM, theirs: dspy.LM, sup: dspex.Supervisor) -> None:
    """parity: DSPy's own trace, by the names of `named_predictors`; the first prompt."""
    module = TwoSteps()
    names = {id(predictor): name for name, predictor in module.named_predictors()}
    trace: list[Any] = []
    with dspy.context(lm=theirs, trace=trace):
        module(question="q")
    expected = [(names[id(predictor)], inputs, dict(made.items())) for predictor, inputs, made in trace]
    program = dspex.module(f"{OWN}:TwoSteps", lm=lm.lm, supervisor=sup).using(trace=True)
    assert [tuple(step) for step in program(question="q").trace] == expected
    assert program.render(question="q") == GLOBAL_HISTORY[-2]["messages"]


def test_callbacks_see_what_dspys_see(lm: FakeLM, theirs: dspy.LM, sup: dspex.Supervisor) -> None:
    """parity: the same methods in the same order, for the same classes, on both routes."""

    class Theirs(BaseCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.seen: list[Any] = []

    def note(hook: str) -> Any:
        def method(self: Any, call_id: str, **facts: Any) -> None:
            instance, outputs = facts.get("instance"), facts.get("outputs")
            kind = getattr(instance, "type", type(instance).__name__) if instance is not None else ""
            kind = "LM" if hook == "on_lm_start" else kind  # in a worker it has a class of its own
            self.seen.append((hook, kind, outputs if "parse" in hook or "format" in hook else None))

        return method

    for hook in HOOKS:
        setattr(Theirs, hook, note(hook))
    expected = Theirs()
    with dspy.context(lm=theirs, callbacks=[expected], adapter=dspy.ChatAdapter()):
        dspy.ChainOfThought("question -> answer")(question="q")
    for route in ("native", "python"):
        seen = Theirs()
        ours = dspex.chain_of_thought("question -> answer", lm=lm.lm, supervisor=sup, callbacks=[seen])
        ours.using(implementation=route)(question="q")  # type: ignore[arg-type]
        assert seen.seen == expected.seen, route
