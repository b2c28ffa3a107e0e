"""Fixture: the four ways to run a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dspex import Pipeline, Result

Go = Callable[..., Result]


@pytest.fixture(params=["run", "arun", "stream", "astream"])
def go(request: pytest.FixtureRequest) -> Go:
    """Runs a pipeline to its result, in one of the four ways."""
    return {"run": _run, "arun": _arun, "stream": _stream, "astream": _astream}[request.param]


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
