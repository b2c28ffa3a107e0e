"""Process: a call whose own deadline is over ends as CallTimeout on both routes; a late model is another error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import CallTimeout, LMTimeoutError
from dspex.testing import FakeLM, FakeReply

QA = "question -> answer"


@pytest.fixture(scope="module")
def silent() -> Iterator[dspex.LM]:
    with FakeLM(lambda _: FakeReply(hang=True)) as lm:
        yield lm.lm.replace(cache=False, retries=2)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        yield running.wait_ready()


async def _read(program: Any) -> None:
    async for _ in program.astream(question="x"):
        pass


WAYS: dict[str, Callable[[Any], object]] = {
    "call": lambda program: program(question="x"),
    "acall": lambda program: asyncio.run(program.acall(question="x")),
    "stream": lambda program: list(program.stream(question="x")),
    "astream": lambda program: asyncio.run(_read(program)),
}


@pytest.mark.parametrize("route", ["native", "python"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_call_whose_deadline_is_over_is_a_call_timeout(
    way: Callable[[Any], object], route: str, silent: dspex.LM, sup: dspex.Supervisor
) -> None:
    """process: whichever notices it first, the request or the pool."""
    program = dspex.predictor("predict", QA, lm=silent, supervisor=sup, implementation=route)  # type: ignore[arg-type]
    with pytest.raises(CallTimeout) as caught:
        way(program.using(timeout=0.5))
    assert caught.value.timeout == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("route", ["native", "python"])
def test_model_that_is_late_is_an_error_of_the_models(route: str, silent: dspex.LM, sup: dspex.Supervisor) -> None:
    """process: its own timeout bounds an attempt, and the call has time left."""
    lm = silent.replace(timeout=0.3, retries=0)
    program = dspex.predictor("predict", QA, lm=lm, supervisor=sup, implementation=route)  # type: ignore[arg-type]
    with pytest.raises(LMTimeoutError):
        program.using(timeout=30.0)(question="x")
