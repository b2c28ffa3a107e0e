"""Collaboration: errors as providers send them, natively and by a real worker: the same class, the same requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import LMContextWindowExceededError, LMError
from dspex.pools.supervisor import Supervisor
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.provider_errors import LENGTH, RECORDED, Recorded

QA = ("question -> answer", {"question": "My password is hunter2-blue, says Jane Doe"})
ROUTES = ("native", "python")
recorded = pytest.mark.parametrize("case", RECORDED, ids=[each.id for each in RECORDED])
overflows = pytest.mark.parametrize(
    "case", [each for each in RECORDED if each.kind is LENGTH], ids=lambda each: each.id
)


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        running.wait_ready()
        yield running


def _lm(case: Recorded, replies: list[Any], **options: Any) -> FakeLM:
    return FakeLM(replies, model="anthropic/m" if case.is_anthropic else "openai/m", **options)


@recorded
@pytest.mark.parametrize("route", ROUTES)
def test_recorded_error_is_the_same_on_both_routes(case: Recorded, route: str, supervisor: Supervisor) -> None:
    """I3: class, facts, requests, and what the text holds; kept by nobody."""
    reply = FakeReply(status=case.status, body=case.body)
    with _lm(case, [reply, {"answer": "fine"}], retries=0, cache=True) as lm:
        ask: dict[str, Any] = {"lm": lm, "adapter": "chat", "implementation": route, "supervisor": supervisor}
        with pytest.raises(LMError) as caught:
            dspex.predict(*QA, **ask)
        assert type(caught.value) is case.kind and len(lm.requests) == 1
        assert caught.value.status in (case.status, None) and caught.value.model == lm.model
        assert dspex.predict(*QA, **ask).answer == "fine"


@recorded
@pytest.mark.parametrize("route", ROUTES)
def test_recorded_error_fails_over_on_both_routes(case: Recorded, route: str, supervisor: Supervisor) -> None:
    """collaboration: where another may do better, and only there."""
    reply = FakeReply(status=case.status, body=case.body)
    with _lm(case, [reply], retries=0, cycle=True) as first, FakeLM([{"answer": "fine"}], model="openai/b") as backup:
        lm = first.replace(fallbacks=[backup.lm], api_key=first.api_key)
        ask: dict[str, Any] = {"lm": lm, "adapter": "chat", "implementation": route, "supervisor": supervisor}
        if case.is_failed_over:
            assert dspex.predict(*QA, **ask).answer == "fine"
        else:
            with pytest.raises(case.kind):
                dspex.predict(*QA, **ask)
        assert len(backup.requests) == case.is_failed_over


@overflows
def test_react_drops_its_oldest_steps(case: Recorded, supervisor: Supervisor) -> None:
    """collaboration: as in DSPy, which knows of an overflow by its class."""
    step = {"next_thought": "look", "next_tool_name": "look", "next_tool_args": {}}
    done = {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}}
    reply = FakeReply(status=case.status, body=case.body)
    with _lm(case, [step, step, reply, done, {"reasoning": "r", "answer": "fine"}], retries=0) as lm:
        out = dspex.react("question -> answer", [look], max_iters=5, lm=lm, adapter="chat", supervisor=supervisor)(
            question="q"
        )
    assert out.answer == "fine" and len(lm.requests) == 5
    assert len(lm.requests[3].raw) < len(lm.requests[2].raw), "the step was not dropped"


def look() -> str:
    """Look around."""
    return "a wall " * 20


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_text_of_an_error_holds_no_prompt_on_either_route(
    route: str, is_streamed: bool, supervisor: Supervisor
) -> None:
    """X3: what the provider quotes is an attribute, and so are the facts."""
    said = "Invalid value for `messages[1].content`: '{}'"
    with FakeLM(lambda messages: FakeReply(status=400, error=said.format(messages[-1]["content"])), retries=0) as lm:
        ask: dict[str, Any] = {"lm": lm, "adapter": "chat", "implementation": route, "supervisor": supervisor}
        with pytest.raises(LMError) as caught:
            list(dspex.predict_stream(*QA, **ask)) if is_streamed else dspex.predict(*QA, **ask)
    assert "hunter2" not in str(caught.value) and "Jane" not in str(caught.value)
    assert "Invalid value" in str(caught.value) and "hunter2" in str(caught.value.provider_message)
    assert caught.value.status == 400


def test_overflow_reaches_streams_of_a_worker(supervisor: Supervisor) -> None:
    """collaboration: the class is the parent's there too."""
    case = next(each for each in RECORDED if each.sender == "vLLM" and each.kind is LENGTH)
    with _lm(case, [FakeReply(status=case.status, body=case.body)], retries=0) as lm:
        ask: dict[str, Any] = {"lm": lm, "adapter": "chat", "implementation": "python", "supervisor": supervisor}
        with pytest.raises(LMContextWindowExceededError):
            list(dspex.predict_stream(*QA, **ask))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_choices_from_the_cache_are_not_paid_again(route: str, adapter: str, supervisor: Supervisor) -> None:
    """collaboration: of n choices, one of which was asked for before, the others are counted."""
    used = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    replies = [FakeReply({"answer": name}, usage=used) for name in "abc"]
    with FakeLM(replies, cache=True) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=supervisor)
        program = program.using(implementation=route, adapter=adapter)
        tokens = [
            sum(each["total_tokens"] for each in program.using(config=config)(question="q").usage.values())
            for config in ({"temperature": 0.7}, {"temperature": 0.7, "n": 3}, {"temperature": 0.7, "n": 3})
        ]
    assert tokens == [5, 10, 0] and len(lm.requests) == 3


def test_direct_lms_errors_hold_no_prompt(supervisor: Supervisor) -> None:
    """X3: a worker that connects by itself reads the provider's words, which stay an attribute."""
    said = "Invalid value: '{}'"
    with FakeLM(lambda messages: FakeReply(status=400, error=said.format(messages[-1]["content"]))) as fake:
        lm = dspex.LM("openai/m", api_base=fake.api_base, api_key=fake.api_key, retries=0, direct=True)
        with pytest.raises(LMError) as caught:
            dspex.predict(*QA, lm=lm, adapter="chat", supervisor=supervisor)
    assert "hunter2" not in str(caught.value) and "hunter2" in str(caught.value.provider_message)
    assert caught.value.status == 400 and str(fake.api_key) not in f"{vars(caught.value)}"
