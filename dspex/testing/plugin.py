"""The pytest plugin: `fake_lm`, and `no_leaks`, which fails a test that leaves descriptors, threads or children behind.

What DSPex keeps for the whole process, by design, is no leak of a test: the connections of the process's LM client, and
the default supervisor if the test was the first to need it. `no_leaks` ends both, then looks again.

Loaded in every pytest run by its entry point, so it imports nothing heavy. `no_leaks` is on request: name it in a test,
in `usefixtures`, or switch it on for all tests with `dspex_leak_check = true` in pytest's settings.
"""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .fake_lm import FakeLM, FakeLMMaker

_PATIENCE_S = 5.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting."""
    parser.addini("dspex_leak_check", "run every test under the no_leaks fixture", type="bool", default=False)


@pytest.fixture
def fake_lm() -> Iterator[FakeLMMaker]:
    """A maker of `FakeLM`s that are closed after the test, also an async one: `lm = fake_lm(["Paris"])`."""
    from .fake_lm import FakeLM

    made: list[FakeLM] = []

    def make(*args: Any, **options: Any) -> FakeLM:
        made.append(FakeLM(*args, **options))
        return made[-1]

    yield make
    for lm in made:
        lm.close()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails the test if it leaves open descriptors, threads or child processes; they get five seconds to go away."""
    before, had_supervisor = _holdings(), _default_supervisor_runs()
    yield
    deadline = time.monotonic() + _PATIENCE_S
    leaks = _leaks(before)
    if leaks:
        _release(keep_supervisor=had_supervisor)
        leaks = _leaks(before)
    while leaks and time.monotonic() < deadline:
        gc.collect()
        threading.Event().wait(0.01)
        leaks = _leaks(before)
    if leaks:
        pytest.fail("The test left behind: " + "; ".join(leaks), pytrace=False)


@pytest.fixture(autouse=True)
def _dspex_leak_check(request: pytest.FixtureRequest) -> None:
    """Begins `no_leaks` before the test's other fixtures, in whichever order it names them: it ends after them."""
    if request.config.getini("dspex_leak_check") or "no_leaks" in request.fixturenames:
        request.getfixturevalue("no_leaks")


def _default_supervisor_runs() -> bool:
    return _is_loaded() and _defaults().running_supervisor() is not None


def _release(*, keep_supervisor: bool) -> None:
    """End what DSPex keeps for the whole process; it comes back at its next use."""
    if not _is_loaded():
        return
    if not keep_supervisor:
        _defaults().stop_default_supervisor()
    _defaults().release_client()


def _is_loaded() -> bool:
    return "dspex.defaults" in sys.modules


def _defaults() -> ModuleType:
    return importlib.import_module("dspex.defaults")


def _holdings() -> tuple[dict[int, str], set[int | None], set[int]]:
    threads = {thread.ident for thread in threading.enumerate()}
    return _descriptors(), threads, _children()


def _leaks(before: tuple[dict[int, str], set[int | None], set[int]]) -> list[str]:
    descriptors, threads, children = before
    found = [f"descriptor {fd} ({what})" for fd, what in _descriptors().items() if descriptors.get(fd) != what]
    found += [f"thread {thread.name}" for thread in threading.enumerate() if thread.ident not in threads]
    found += [f"child process {pid}" for pid in sorted(_children() - children)]
    return found


def _descriptors() -> dict[int, str]:
    found: dict[int, str] = {}
    try:
        paths = list(Path("/proc/self/fd").iterdir())
    except OSError:  # not Linux
        return found
    for path in paths:
        try:
            found[int(path.name)] = str(path.readlink())
        except OSError:  # the directory's own descriptor, closed by now
            continue
    return found


def _children() -> set[int]:
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(int(pid) for pid in path.read_text().split())
        except OSError:
            continue
    return found
