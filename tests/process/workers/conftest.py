"""Supervisors of workers that run hostile code, with the leak check on for every test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspex.pools.supervisor import Supervisor
from tests.process.conftest import _leaves_nothing, supervise
from tests.support.paths import HOSTILE_BRIDGE

__all__ = ["_leaves_nothing", "hostile", "supervise"]

Hostile = Callable[..., Supervisor]


@pytest.fixture
def hostile(supervise: Callable[..., Supervisor]) -> Hostile:
    """A maker of running supervisors of one worker that runs `hostile_bridge.py`."""

    def make(**settings: Any) -> Supervisor:
        return supervise(**{"bridge": HOSTILE_BRIDGE, "size": 1, "restart_budget": (100, 1.0), **settings})

    return make
