"""Every rule is tried in the four ways to run a pipeline; most modules keep one supervisor for all their tests."""

from __future__ import annotations

import pytest

from tests.support.pipelines.ways import go

__all__ = ["go"]


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here, unless its module asks for `no_leaks`."""
