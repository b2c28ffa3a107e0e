"""Supervisors for the tests of this folder, with the leak check on for every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex.config import PoolConfig
from dspex.pools import reaper
from dspex.pools.supervisor import Supervisor

Supervise = Callable[..., Supervisor]


@pytest.fixture(autouse=True)
def _leaves_nothing(no_leaks: None) -> None:
    """Every test here gives back its descriptors, threads and processes."""


@pytest.fixture
def supervise(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervise]:
    """A maker of running supervisors of one pool, "f", on the faults bridge; they are stopped after the test."""
    made: list[Supervisor] = []
    monkeypatch.setattr(reaper, "EXIT_PATIENCE", 2.0)  # how a worker died is to be known on a busy machine too

    def make(*, wait: bool = True, start: bool = True, **settings: Any) -> Supervisor:
        defaults = {"bridge": "faults", "size": 2, "stop_grace": 0.5, "startup_timeout": 20.0}
        sup = Supervisor(pools=[PoolConfig("f", **{**defaults, **settings})])
        made.append(sup)
        if start:
            sup.start()
        if wait and start:
            sup.wait_ready()
        return sup

    yield make
    for sup in made:
        sup.stop(grace=0.0)
