"""Process: the log probabilities of an answer's tokens, on both routes, beside the outputs and as DSPy has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM, FakeReply

TEXT = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
TOKENS = [
    {"token": "Par", "logprob": -0.5, "bytes": [80, 97, 114], "top_logprobs": [{"token": "Lon", "logprob": -3}]},
    {"token": "is", "logprob": -1, "bytes": None, "top_logprobs": []},
]
READ = {
    "content": [
        {
            "token": "Par",
            "logprob": -0.5,
            "bytes": [80, 97, 114],
            "top_logprobs": [{"token": "Lon", "logprob": -3.0, "bytes": None}],
        },
        {"token": "is", "logprob": -1.0, "bytes": None, "top_logprobs": []},
    ]
}
Q = ("question -> answer", {"question": "x"})


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig("dspy", size=1, imports=("tests.support.programs",))
    with dspex.Supervisor(pools=[pool]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def _reply(tokens: Any = TOKENS) -> FakeReply:
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    choice |= {"logprobs": {"content": tokens}}
    return FakeReply(body=json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode())


def _stream() -> FakeReply:
    choices: list[dict[str, Any]] = [
        {"delta": {"content": TEXT[:20]}, "logprobs": {"content": TOKENS[:1]}},
        {"delta": {"content": TEXT[20:]}, "logprobs": {"content": TOKENS[1:]}},
        {"delta": {}, "finish_reason": "stop", "logprobs": None},
    ]
    events = [{"id": "c", "model": "m", "choices": [{"index": 0, **choice}]} for choice in choices]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    return FakeReply(body=body, headers={"content-type": "text/event-stream"})


@pytest.mark.parametrize("route", ["native", "python"])
@pytest.mark.parametrize("cache", [False, True])
def test_logprobs_are_a_fact_of_the_prediction(sup: dspex.Supervisor, route: Any, cache: bool) -> None:
    """process: F14; also of an answer from the cache"""
    with FakeLM([_reply(), _reply()], logprobs=True, top_logprobs=1, cache=cache) as lm:
        for _ in range(2):
            out = dspex.predict(*Q, lm=lm, implementation=route, supervisor=sup)
            assert list(out) == ["answer"]
            assert out.logprobs == READ
            assert out.logprobs is not None
            assert out.logprobs.content[0].top_logprobs[0].token == "Lon"
            assert out.all_logprobs == (READ,)
        assert len(lm.requests) == (1 if cache else 2)


@pytest.mark.parametrize("route", ["native", "python"])
def test_each_answer_has_its_own(sup: dspex.Supervisor, route: Any) -> None:
    """process: n=2"""
    with FakeLM([_reply(), _reply(TOKENS[1:])]) as lm:
        config = {"n": 2, "logprobs": True}
        out = dspex.predict(*Q, lm=lm, config=config, implementation=route, supervisor=sup)
        assert [len(one.content) for one in out.all_logprobs] == [2, 1]
        assert [list(one) for one in out.completions] == [["answer"], ["answer"]]


@pytest.mark.parametrize("route", ["native", "python"])
def test_streams_have_them_too(sup: dspex.Supervisor, route: Any) -> None:
    """process: collected from the events"""
    with FakeLM([_stream()], logprobs=True) as lm:
        program = dspex.predictor("predict", Q[0], lm=lm, implementation=route, supervisor=sup)
        out = [*program.stream(**Q[1])][-1]
        assert isinstance(out, dspex.Prediction)
        assert out.logprobs == READ


@pytest.mark.parametrize("route", ["native", "python"])
@pytest.mark.parametrize("tokens", [None, "x", [3, {"token": 1}, {"token": "a", "logprob": "x"}]])
def test_odd_ones_are_left_out(sup: dspex.Supervisor, route: Any, tokens: Any) -> None:
    """process: as by DSPy, but for a text as number, which ends its call"""
    if isinstance(tokens, list):
        tokens = tokens[:2]
    with FakeLM([_reply(tokens)], logprobs=True) as lm:
        assert dspex.predict(*Q, lm=lm, implementation=route, supervisor=sup).logprobs == {"content": []}


@pytest.mark.parametrize("route", ["native", "python"])
def test_who_does_not_ask_has_none(sup: dspex.Supervisor, route: Any) -> None:
    """process: even if a server sends them"""
    with FakeLM([_reply()]) as lm:
        out = dspex.predict(*Q, lm=lm, implementation=route, supervisor=sup)
        assert out.logprobs is None
        assert out.all_logprobs == ()


@pytest.mark.parametrize("route", ["native", "python"])
def test_an_output_of_that_name_is_an_output(sup: dspex.Supervisor, route: Any) -> None:
    """process: a signature may name its field so"""
    with FakeLM(lambda _: {"logprobs": "mine"}) as lm:
        out = dspex.predict("question -> logprobs", Q[1], lm=lm, implementation=route, supervisor=sup)
        assert (out.logprobs, out["logprobs"]) == ("mine", "mine")


def test_the_users_own_modules_read_them_as_with_dspy(sup: dspex.Supervisor) -> None:
    """process: inside a worker they stay where DSPy has them"""
    with FakeLM([_reply()]) as lm:
        program = dspex.module("tests.support.programs.optioned_lms:Surest", lm=lm, supervisor=sup)
        out = program(question="q")
        assert (out.answer, out.first) == ("Paris", "Par")


def test_metrics_and_rewards_of_the_host_see_them_and_why_the_answer_ended() -> None:
    """process: of predictions that a worker made, in an optimization and as a reward"""
    seen: list[Any] = []

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        seen.append((prediction.logprobs, prediction.finish_reason, list(prediction)))
        return 1.0

    def reward(inputs: Any, prediction: Any) -> float:
        return metric(None, prediction)

    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools) as both, FakeLM(lambda _: _reply(), logprobs=True) as lm:
        how: dict[str, Any] = {"lm": lm, "supervisor": both, "implementation": "python"}
        dspex.best_of_n(Q[0], reward_fn=reward, N=2, threshold=1.0, **how)(**Q[1])
        assert seen == [(READ, "stop", ["answer"])]
        rows = [{"question": "x", "answer": "Paris"}]
        program = dspex.predictor("predict", Q[0], **how)
        dspex.optimize(program, rows, optimizer="bootstrap", metric=metric, max_labeled_demos=0)
        assert len(seen) > 1
        assert all(each == seen[0] for each in seen)
