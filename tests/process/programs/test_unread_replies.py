"""Collaboration: replies that are read here, but not by DSPy in a worker: refused alike, asked again, never kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import DspexError, LMProviderError
from dspex.pools.supervisor import Supervisor
from dspex.testing import FakeLM, FakeReply

QA = ("question -> answer", {"question": "x"})
TEXT = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
CHAT: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}]}
ANTHROPIC: dict[str, Any] = {"type": "message", "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn"}
WHOLE = {
    "no JSON": ("openai/fake", {**CHAT, "x": float("nan")}),
    "infinite": ("anthropic/fake", {**ANTHROPIC, "x": [1, float("inf")]}),
    "kind": ("anthropic/fake", {**ANTHROPIC, "content": [*ANTHROPIC["content"], {"type": ["text"]}]}),
}
USAGE: dict[str, Any] = {
    "text": {"total_tokens": "5"},
    "fraction": {"prompt_tokens": 1.5},
    "negative": {"total_tokens": -1},
}


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        running.wait_ready()
        yield running


def _stream(usage: Any) -> bytes:
    delta = {"choices": [{"index": 0, "delta": {"content": TEXT}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = (json.dumps(each) for each in (delta, end, {"choices": [], "usage": usage}))
    return "".join(f"data: {each}\n\n" for each in (*events, "[DONE]")).encode()


@pytest.mark.parametrize("name", WHOLE)
def test_reply_is_refused_asked_for_again_and_not_kept(name: str, supervisor: Supervisor) -> None:
    """collaboration: as any other reply of no API's shape; then the next LM is asked."""
    model, body = WHOLE[name]
    odd = FakeReply(body=json.dumps(body).encode())
    ask: dict[str, Any] = {"adapter": "chat", "implementation": "python", "supervisor": supervisor}
    with FakeLM(lambda _: odd, model=model, retries=0, cache=True) as lm, FakeLM([{"answer": "Rome"}]) as backup:
        for number in (1, 2):
            with pytest.raises(LMProviderError, match="of the API's shape"):
                dspex.predict(*QA, lm=lm, **ask)
            assert len(lm.requests) == number  # the second was no answer of the cache
        safe = lm.replace(fallbacks=[backup.lm], api_key=lm.api_key)
        assert dspex.predict(*QA, lm=safe, **ask).answer == "Rome"


@pytest.mark.parametrize("name", WHOLE)
def test_what_the_host_reads_and_keeps_is_no_answer_for_a_worker(name: str, supervisor: Supervisor) -> None:
    """collaboration: a kept reply that the worker could not read is deleted, and asked for anew."""
    model, body = WHOLE[name]
    replies = [FakeReply(body=json.dumps(body).encode()), {"answer": "Rome"}]
    ask: dict[str, Any] = {"adapter": "chat", "supervisor": supervisor}
    with FakeLM(replies, model=model, retries=0, cache=True) as lm:
        assert dspex.predict(*QA, lm=lm, implementation="native", **ask).answer == "Paris"
        assert dspex.predict(*QA, lm=lm, implementation="native", **ask).answer == "Paris" and len(lm.requests) == 1
        assert dspex.predict(*QA, lm=lm, implementation="python", **ask).answer == "Rome"
        assert dspex.predict(*QA, lm=lm, implementation="native", **ask).answer == "Rome" and len(lm.requests) == 2


@pytest.mark.parametrize("name", USAGE)
def test_streamed_reply_that_a_worker_cannot_read_is_not_kept(name: str, supervisor: Supervisor) -> None:
    """collaboration: its counters are read at the end only, when the text was shown."""
    ask: dict[str, Any] = {"adapter": "chat", "implementation": "python", "supervisor": supervisor}
    with FakeLM(lambda _: FakeReply(body=_stream(USAGE[name])), retries=0, cache=True) as lm:
        for number in (1, 2):
            with pytest.raises(DspexError):
                list(dspex.predict_stream(*QA, lm=lm, **ask))
            assert len(lm.requests) == number


def test_streamed_reply_that_it_can_read_is_kept(supervisor: Supervisor) -> None:
    """collaboration: or the test above would tell nothing."""
    ask: dict[str, Any] = {"adapter": "chat", "implementation": "python", "supervisor": supervisor}
    with FakeLM(lambda _: FakeReply(body=_stream({"total_tokens": 5})), retries=0, cache=True) as lm:
        for _ in range(2):
            *_, last = dspex.predict_stream(*QA, lm=lm, **ask)
            assert last.answer == "Paris"
        assert len(lm.requests) == 1
