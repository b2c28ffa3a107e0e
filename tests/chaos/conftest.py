"""Supervisors for the tests of this folder, with the leak check on for every test, and a seed for each."""

from __future__ import annotations

import random
from random import Random

import pytest

from tests.support.supervisors import leaves_nothing, supervise

__all__ = ["leaves_nothing", "seeded", "supervise"]


@pytest.fixture
def seeded() -> Random:
    """A generator for the test's plan; its seed is shown if the test fails."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    return Random(seed)
