"""The child process in which the worker programs are tested: one per session, dspy imported once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.paths import ROOT


class Inside:
    """Runs cases in the child, one at a time."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "tests.support.worker_cases", str(writing)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(writing,), text=True
        )
        os.close(writing)
        self._answers = os.fdopen(reading)

    def run(self, module: str, name: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{module} {name}\n")
        self._process.stdin.flush()
        line = self._answers.readline()
        assert line, f"the child died with {self._process.wait()}"
        error = json.loads(line)["error"]
        if error:
            pytest.fail(error, pytrace=False)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._answers.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def inside() -> Iterator[Callable[[str, str], None]]:
    """Runs one case of the child: `inside(module, function)`."""
    child = Inside()
    yield child.run
    child.close()


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here: a module's supervisor starts its workers when a test first needs them."""
