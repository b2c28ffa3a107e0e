"""What these tests share: a pool of one worker, a scripted endpoint, and DSPy in a process beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM
from tests.support.own_modules.beside import HERE, Dspy, Seen, here, scripted

Both = Callable[..., tuple[Seen, Seen]]


@pytest.fixture(scope="module")
def supervisor() -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def lm() -> Iterator[FakeLM]:
    with FakeLM(scripted) as fake:
        yield fake


@pytest.fixture(scope="module")
def beside() -> Iterator[Dspy]:
    process = Dspy()
    yield process
    process.close()


@pytest.fixture
def both(supervisor: dspex.Supervisor, lm: FakeLM, beside: Dspy) -> Both:
    """A function from a case to what each side made of it: DSPy's, DSPex's."""

    def run(what: str, how: str = "call", init: dict[str, Any] | None = None, **inputs: Any) -> tuple[Seen, Seen]:
        path = f"{HERE}.{what}"
        program = dspex.module(path, supervisor=supervisor, lm=lm, **init or {})
        return beside.ask(lm, path, init=init, how=how, inputs=inputs), here(program, lm, how, inputs=inputs)

    return run
