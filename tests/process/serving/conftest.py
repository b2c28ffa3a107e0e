"""Fixtures of served programs; the check for leaks is off: supervisors are a module's."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Nothing is checked."""
