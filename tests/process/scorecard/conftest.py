"""No leak check after each test here: the supervisors are a module's."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Nothing is checked."""
