"""Supervisors of workers that run hostile code, with the leak check on for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspex.pools.supervisor import Supervisor
from tests.pools.conftest import _leaves_nothing, supervise

__all__ = ["_leaves_nothing", "hostile", "supervise"]

BRIDGE = Path(__file__).with_name("hostile_bridge.py")
Hostile = Callable[..., Supervisor]


@pytest.fixture
def hostile(supervise: Callable[..., Supervisor]) -> Hostile:
    """A maker of running supervisors of one worker that runs `hostile_bridge.py`."""

    def make(**settings: Any) -> Supervisor:
        return supervise(**{"bridge": str(BRIDGE), "size": 1, "restart_budget": (100, 1.0), **settings})

    return make
