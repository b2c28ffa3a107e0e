"""Supervisors for the tests of this folder, with the leak check on for every test, and a seed for each."""

from __future__ import annotations

import random
from random import Random

import pytest

from tests.process.conftest import Supervise, supervise

__all__ = ["Supervise", "seeded", "supervise"]


@pytest.fixture(autouse=True)
def _leaves_nothing(no_leaks: None) -> None:
    """Every test here gives back its descriptors, threads and processes."""


@pytest.fixture
def seeded() -> Random:
    """A generator for the test's plan; its seed is shown if the test fails."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    return Random(seed)
