"""The pools of the versions' tests: workers of this interpreter, or of the one that DSPEX_WORKER_PYTHON names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from tests.support.paths import ROOT

PYTHON = os.environ.get("DSPEX_WORKER_PYTHON") or sys.executable


@pytest.fixture(scope="session")
def dspy_there() -> tuple[int, ...]:
    """The version of DSPy that the workers have."""
    code = "from importlib.metadata import version; print(version('dspy'))"
    said = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.strip().split(".")[:3] if part.isdecimal())


@pytest.fixture(scope="session")
def supervisor() -> Iterator[dspex.Supervisor]:
    """Both shipped bridges, on that interpreter."""
    other: dict[str, Any] = {} if sys.executable == PYTHON else {"python": PYTHON, "start_method": "exec"}
    paths = [str(ROOT), str(ROOT / "workers")]
    pools = [
        dspex.PoolConfig(
            name,
            bridge=name,
            size=1,
            imports=["tests.support.user_code"],
            env={"PYTHONPATH": os.pathsep.join(paths)},
            **other,
        )
        for name in ("dspy", "mipro")
    ]
    with dspex.Supervisor(pools=pools) as running:
        running.wait_ready()
        yield running
