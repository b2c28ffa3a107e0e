"""Process: pipelines over real DSPy workers and a scripted language model: the seed's own examples, and more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex import EventKind, Pipeline, native, parallel, pipeline, python
from dspex.config import PoolConfig
from dspex.errors import LMError, PipelineError, SettingsError
from dspex.lm.cache import Cache
from dspex.pipelines.core.results import Status
from dspex.pools.supervisor import Supervisor
from dspex.testing import FakeLM
from tests.support.pipelines.ways import Go

QUESTION = "What is DSPy?"
ANSWERS = {
    "search_queries": {"search_queries": ["dspy", "prompting"]},
    "refined_queries": {"reasoning": "narrower", "refined_queries": "dspy framework"},
    "summary": {"summary": "a framework"},
}


@pytest.fixture(scope="module")
def sup() -> Iterator[Supervisor]:
    with Supervisor(pools=[PoolConfig("dspy", size=1, stop_grace=0.2)]) as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def lm() -> Iterator[FakeLM]:
    def answer(messages: list[dict[str, Any]]) -> Any:
        asked = messages[0]["content"]  # the system message names the output fields
        return next(reply for field, reply in reversed(ANSWERS.items()) if f"[[ ## {field} ## ]]\n{{{field}}}" in asked)

    with FakeLM(answer) as made:
        yield made


class VectorSearch:
    def run(self, state: Any, *, index: str) -> list[str]:
        return [f"{index}: {state['refined_queries']}"]


class ResponseFormatter:
    @staticmethod
    def run(state: Any, *, format: str) -> dict[str, str]:
        return {"response": f"# {state['summary']} ({format})"}


def _assistant() -> Pipeline:
    """The seed's pipeline, without the parts that need other services."""
    return pipeline(
        [
            native(dspex.Signature, spec="question -> search_queries: list[str]"),
            python("dspy.ChainOfThought", signature="search_queries: list[str] -> refined_queries"),
            parallel(
                [
                    native(VectorSearch, index="documents"),
                    native(lambda refined_queries, engine: engine, engine="google"),
                ],
                into="evidence",
            ),
            native("question, evidence: list -> summary"),
            native(ResponseFormatter, format="markdown"),
        ],
        name="research assistant",
    )


def test_the_seeds_pipeline_runs(sup: Supervisor, lm: FakeLM, go: Go) -> None:
    """process: P1, P2: what ChainOfThought adds is in its step's record"""
    result = go(_assistant(), {"question": QUESTION}, supervisor=sup, lm=lm)
    assert result["search_queries"] == ["dspy", "prompting"]
    assert result["evidence"] == [["documents: dspy framework"], "google"]
    assert result["response"] == "# a framework (markdown)"
    assert "reasoning" not in result
    asked, thought = result.steps[0], result.steps["dspy.ChainOfThought"]
    assert (asked.route, thought.route) == ("native", "python:dspy/0")
    assert thought["reasoning"] == "narrower"
    assert (thought.worker, thought.attempts) == ("dspy/0", 1)
    assert thought.generation is not None
    assert sum(usage["prompt_tokens"] for usage in result.usage.values()) > 0


def test_the_seeds_cached_pipeline_asks_once(sup: Supervisor, lm: FakeLM) -> None:
    """process: the seed's last example"""
    p = pipeline([
        native(dspex.Signature, spec="question -> search_queries: list[str]"),
        python("dspy.ChainOfThought", signature="search_queries: list[str] -> refined_queries"),
        native(Cache, ttl=3600),
    ])  # fmt: skip
    before = len(lm.requests)
    first = p.run({"question": QUESTION}, supervisor=sup, lm=lm)
    again = p.run({"question": QUESTION}, supervisor=sup, lm=lm)
    assert first["refined_queries"] == again["refined_queries"] == "dspy framework"
    assert len(lm.requests) == before + 2
    assert [step.status for step in again.steps] == [Status.KEPT, Status.KEPT, Status.DONE]
    assert again.usage == {}
    with FakeLM(lambda messages: ANSWERS["search_queries"]) as other, pytest.raises(PipelineError):
        p.run({"question": QUESTION}, supervisor=sup, lm=other)  # another model: nothing is served


def test_explain_says_where_each_step_runs(lm: FakeLM) -> None:
    """unit"""
    p = pipeline([native("q -> search_queries", lm=lm.lm), *_assistant().steps[1:]])
    plans = p.explain()
    assert [plan.route for plan in plans[:3]] == ["native", "python:dspy", ""]
    assert plans[1].writes == ("refined_queries",)
    assert [part.name for part in plans[2].parts] == ["VectorSearch", "step"]
    assert "everything it uses" in plans[0].reason or "asked for" in plans[0].reason
    assert str(plans[2]).splitlines()[1].startswith("   0. VectorSearch: native")
    assert _assistant().inputs == ("question",)


def test_a_watched_native_step_gives_its_text_as_it_comes(lm: FakeLM) -> None:
    """collaboration"""
    p = pipeline([native("question, evidence: list -> summary", lm=lm.lm, name="sum")])
    inputs = {"question": QUESTION, "evidence": []}

    async def astreamed() -> list[Any]:
        return [event async for event in p.astream(inputs)]

    for events in (list(p.stream(inputs)), asyncio.run(astreamed())):
        pieces = [event.facts["text"] for event in events if event.kind is EventKind.STEP_CHUNK]
        assert "".join(pieces) == "a framework"
        assert events[-1].result["summary"] == "a framework"


def test_a_program_is_a_step_on_either_side(sup: Supervisor, lm: FakeLM, go: Go) -> None:
    """process"""
    qa = dspex.predictor("predict", "question, evidence: list -> summary", lm=lm.lm)
    inputs = {"question": QUESTION, "evidence": ["x"]}
    assert go(pipeline([qa]), inputs).steps[0].route == "native"
    assert go(pipeline([python(qa)]), inputs, supervisor=sup).steps[0].route == "python:dspy/0"
    with pytest.raises(SettingsError):
        python(qa, k=3)


def test_an_lms_error_is_the_same_class_in_both_kinds_of_step(
    sup: Supervisor, go: Go, fake_lm: Callable[..., FakeLM]
) -> None:
    """process: I3"""
    refusing = fake_lm([])
    for step in (native("question -> answer"), python("dspy.Predict", signature="question -> answer")):
        with pytest.raises(PipelineError) as caught:
            go(pipeline([step]), {"question": QUESTION}, supervisor=sup, lm=refusing)
        assert isinstance(caught.value.causes[0], LMError), caught.value.causes
