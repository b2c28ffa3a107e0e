"""Fixtures of the tests of metrics and spans."""

from __future__ import annotations

import pytest

from tests.support.service import folder

__all__ = ["folder"]


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here: a module's supervisor replaces workers as tests come and go."""
