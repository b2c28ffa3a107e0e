"""What the native tests share: one DSPy process for all parity tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.parity.claimed_routes import claimed_route as claimed_route
from tests.support.parity.oracle import Oracle


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """DSPy in a process of its own; started at the first parity test."""
    started = Oracle()
    yield started
    started.close()
