"""Fixtures: supervisors of one pool, "f", that are stopped after their test; and the check that nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex.config import PoolConfig
from dspex.pools import reaper
from dspex.pools.supervisor import Supervisor
from tests.support.paths import HOSTILE_BRIDGE

Supervise = Callable[..., Supervisor]
Hostile = Callable[..., Supervisor]


@pytest.fixture(autouse=True)
def leaves_nothing(no_leaks: None) -> None:
    """Every test here gives back its descriptors, threads and processes."""


@pytest.fixture
def supervise(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervise]:
    """A maker of running supervisors of one pool, "f", on the faults bridge; they are stopped after the test."""
    made: list[Supervisor] = []
    monkeypatch.setattr(reaper, "EXIT_PATIENCE", 2.0)  # how a worker died is to be known on a busy machine too

    def make(*, wait: bool = True, start: bool = True, **settings: Any) -> Supervisor:
        defaults = {"bridge": "faults", "size": 2, "stop_grace": 0.5, "startup_timeout": 60.0}
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


@pytest.fixture
def hostile(supervise: Supervise) -> Hostile:
    """A maker of running supervisors of one worker that runs `hostile_bridge.py`."""

    def make(**settings: Any) -> Supervisor:
        return supervise(**{"bridge": HOSTILE_BRIDGE, "size": 1, "restart_budget": (100, 1.0), **settings})

    return make
