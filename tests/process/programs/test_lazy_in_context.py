"""Process: streams and maps that are made in a block of `dspex.context` and read outside it, on both routes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM

ROW = {"question": "x"}


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        yield supervisor


@pytest.mark.parametrize("kind", ["native", "python", "module", "best_of_n"])
def test_what_is_read_later_is_asked_of_the_lm_of_the_block(sup: dspex.Supervisor, kind: str) -> None:
    """process: whoever reads it, no other model is paid; a block that is open only where it is read says nothing."""
    program: Any
    if kind == "module":
        program = dspex.module("dspy:Predict", signature="question -> answer", supervisor=sup)
    elif kind == "best_of_n":
        program = dspex.best_of_n("question -> answer", reward_fn=lambda inputs, out: 1.0, N=1, supervisor=sup)
    else:
        program = dspex.predictor("predict", "question -> answer", implementation=kind, supervisor=sup)  # type: ignore[arg-type]

    async def awaited() -> list[str]:
        with dspex.context(lm=meant):
            parts, rows = program.astream(**ROW), dspex.amap(program, [ROW])
        with dspex.context(lm=other):
            row = await anext(rows)
            return [[part async for part in parts][-1].answer, row.result().answer]

    with FakeLM(by_field={"answer": "meant"}) as meant, FakeLM(by_field={"answer": "other"}) as other:
        with dspex.context(lm=meant):
            parts, rows = program.stream(**ROW), dspex.map(program, [ROW])
        with dspex.context(lm=other):
            found = [[*parts][-1].answer, next(rows).result().answer, *asyncio.run(awaited())]
        assert found == ["meant"] * 4 and not other.requests


def test_a_stream_that_is_left_is_closed(sup: dspex.Supervisor) -> None:
    """process: `contextlib.closing` and `aclosing` go on to hold for it."""
    program = dspex.predictor("predict", "question -> answer", implementation="python", supervisor=sup)

    async def left() -> None:
        async with contextlib.aclosing(program.using(lm=lm).astream(**ROW)) as parts:  # type: ignore[type-var]
            await anext(parts)

    with FakeLM(by_field={"answer": "one two three"}) as lm:
        with contextlib.closing(program.using(lm=lm).stream(**ROW)) as parts:  # type: ignore[type-var]
            next(parts)
        asyncio.run(left())
        assert program.using(lm=lm)(**ROW).answer == "one two three"
