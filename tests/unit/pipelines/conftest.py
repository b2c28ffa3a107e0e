"""Every rule is tried in the four ways to run a pipeline, and every test gives back what it took."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex import Pipeline, Result
from dspex.config import PoolConfig
from dspex.pools.supervisor import Supervisor

Go = Callable[..., Result]
Supervise = Callable[..., Supervisor]


@pytest.fixture(autouse=True)
def _leaves_nothing(no_leaks: None) -> None:
    """Every test here gives back its descriptors, threads and processes."""


@pytest.fixture(params=["run", "arun", "stream", "astream"])
def go(request: pytest.FixtureRequest) -> Go:
    """Runs a pipeline to its result, in one of the four ways."""
    return {"run": _run, "arun": _arun, "stream": _stream, "astream": _astream}[request.param]


@pytest.fixture
def supervise() -> Iterator[Supervise]:
    """A maker of running supervisors of one pool, "f", on the faults bridge; they are stopped after the test."""
    made: list[Supervisor] = []

    def make(**settings: Any) -> Supervisor:
        defaults = {"bridge": "faults", "size": 2, "stop_grace": 0.5, "startup_timeout": 20.0}
        sup = Supervisor(pools=[PoolConfig("f", **{**defaults, **settings})])
        made.append(sup)
        return sup.start().wait_ready()

    yield make
    for sup in made:
        sup.stop(grace=0.0)


def _run(p: Pipeline, inputs: Any = None, **options: Any) -> Result:
    return p.run(inputs, **options)


def _arun(p: Pipeline, inputs: Any = None, **options: Any) -> Result:
    return asyncio.run(p.arun(inputs, **options))


def _stream(p: Pipeline, inputs: Any = None, **options: Any) -> Result:
    last = list(p.stream(inputs, **options))[-1]
    assert last.result is not None
    return last.result


def _astream(p: Pipeline, inputs: Any = None, **options: Any) -> Result:
    async def read() -> Result:
        last = [event async for event in p.astream(inputs, **options)][-1]
        assert last.result is not None
        return last.result

    return asyncio.run(read())
