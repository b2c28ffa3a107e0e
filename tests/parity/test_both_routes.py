"""Parity: the same call on both routes puts the same bytes on the wire and ends alike; workers hold no key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM, FakeReply


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.mark.parity
@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("kind", ["predict", "chain_of_thought"])
def test_both_routes_send_the_same_bytes_and_give_the_same_result(
    sup: dspex.Supervisor, adapter: str, kind: str
) -> None:
    """I1, I2"""
    demos = [{"question": "a", "tags": ["x"], "reasoning": "because", "answer": "b", "score": 1.5}, {"question": "c"}]
    with FakeLM(lambda messages: {"reasoning": "r", "answer": "Paris", "score": 0.5}) as lm:
        program = dspex.predictor(kind, "question, tags: list[str] -> answer, score: float", lm=lm, supervisor=sup)
        program = program.using(adapter=adapter, demos=demos)
        native = program.using(implementation="native")(question="Capital?", tags=["geo"])
        python = program.using(implementation="python")(question="Capital?", tags=["geo"])
        first, second = (request.raw for request in lm.requests)
    assert first == second
    assert native == python
    assert native.score == 0.5
    assert (native.route, python.route) == ("native", "python:dspy/0")


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (FakeReply(status=401, error="invalid key"), dspex.LMAuthError),
        (FakeReply(status=404, error="no such model"), dspex.LMError),
        (FakeReply("this is no answer at all"), dspex.AdapterParseError),
    ],
    ids=["401", "404", "unparsable"],
)
def test_both_routes_raise_the_same_class(
    sup: dspex.Supervisor, adapter: str, reply: FakeReply, error: type[Exception]
) -> None:
    """I3"""
    raised: list[type[BaseException]] = []
    for route in ("native", "python"):
        with FakeLM([reply, reply], retries=0) as lm, pytest.raises(error) as caught:
            dspex.predict(
                "question -> answer", {"question": "q"}, lm=lm, adapter=adapter, implementation=route, supervisor=sup
            )
        raised.append(caught.type)
    assert raised[0] is raised[1]


def test_the_workers_environment_and_memory_hold_no_key(sup: dspex.Supervisor) -> None:
    """X3"""
    with FakeLM([{"answer": "x"}]) as lm:
        out = dspex.predict("question -> answer", {"question": "q"}, lm=lm, implementation="python", supervisor=sup)
        assert out.answer == "x"
        key = lm.api_key or ""
        assert key and lm.requests[0].headers["authorization"] == f"Bearer {key}"
        pid = sup.stats()["dspy"]["workers"][0]["pid"]
        assert key.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert not _memory_holds(pid, key.encode())


def test_the_search_of_memory_finds_what_is_there(sup: dspex.Supervisor) -> None:
    """The check above can fail: the question is found in the same memory."""
    canary = f"question-{os.getpid()}-4711"
    with FakeLM([{"answer": "x"}]) as lm:
        dspex.predict("question -> answer", {"question": canary}, lm=lm, implementation="python", supervisor=sup)
        assert _memory_holds(sup.stats()["dspy"]["workers"][0]["pid"], canary.encode())


def _memory_holds(pid: int, wanted: bytes) -> bool:
    regions: list[Any] = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in regions:
            memory.seek(int(start, 16))
            try:
                if wanted in memory.read(int(end, 16) - int(start, 16)):
                    return True
            except OSError:
                continue  # a guard page
    return False
