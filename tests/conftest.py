"""Fixtures of many folders: a client of language models, scripted models, and a probe of DSPy in a subprocess."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dspex import defaults
from dspex.lm import retries
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM
from tests.support.lm.requests import Probe
from tests.support.paths import ROOT

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> None:
    """Tests may run in the background or under nohup, where SIGINT and SIGHUP are ignored, here and in each child."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)  # exec makes it the default


@pytest.fixture(scope="module", autouse=True)
def nothing_of_the_process_is_left() -> Iterator[None]:
    """A file that needed the default supervisor, or a scripted model, ends it: the next file begins without."""
    models = _scripted_models()
    yield
    supervisor = defaults.running_supervisor()
    defaults.stop_default_supervisor()
    if left := _scripted_models() - models:
        gc.collect()
        left &= _scripted_models()
    assert supervisor is None, "the default supervisor was left running"
    assert not left, f"{len(left)} FakeLM were left open"


def _scripted_models() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name == "dspex-fake-lm"}


@pytest.fixture
def client() -> Iterator[LMClient]:
    with LMClient() as client:
        yield client


@pytest.fixture
def fake() -> Iterator[Callable[..., FakeLM]]:
    made: list[FakeLM] = []

    def make(*args: Any, **options: Any) -> FakeLM:
        made.append(FakeLM(*args, **options))
        return made[-1]

    yield make
    for lm in made:
        lm.close()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are sent again after a millisecond."""
    monkeypatch.setattr(retries, "BACKOFF_S", 0.001)


@pytest.fixture(scope="session")
def dspy_probe() -> Probe:
    """DSPy's own behavior for a list of cases, all in one subprocess."""

    def probe(cases: list[dict[str, Any]], environment: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        names = [name for name in os.environ if not name.endswith(("_API_KEY", "_BASE_URL", "_API_BASE"))]
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.lm.dspy_probe"],
            cwd=ROOT,
            input=json.dumps({"cases": cases}).encode(),
            capture_output=True,
            env={name: os.environ[name] for name in names} | dict(environment or {}),
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        results: list[dict[str, Any]] = json.loads(done.stdout)
        return results

    return probe
