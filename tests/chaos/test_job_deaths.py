"""Chaos: optimizations whose worker, or whose host, is killed at some moment: the same best, and nothing paid twice.

The endpoint's own log says what was asked. Its models cache nothing, so all that is not asked again came from journals.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.programs.job_tasks import OPTIMIZERS, ROWS, endpoint, is_right, shown

IN_FLIGHT = 4  # threads of an optimizer
LATENCY = 0.01


POOLS = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]


@pytest.fixture
def sup() -> Iterator[dspex.Supervisor]:
    """One for each test: pools wait ever longer before they replace workers that die young."""
    with dspex.Supervisor(pools=POOLS) as running:
        yield running


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here: a supervisor of the module's goes on."""


class Undisturbed:
    """What each optimizer finds when nothing happens, and what it asks."""

    def __init__(self, sup: dspex.Supervisor) -> None:
        self._sup = sup
        self._known: dict[str, tuple[Any, Counter[str]]] = {}

    def of(self, optimizer: str) -> tuple[Any, Counter[str]]:
        if optimizer not in self._known:
            with endpoint() as lm:
                best = begun(optimizer, lm, self._sup).result(60)
                self._known[optimizer] = found(best), asked(lm)
        return self._known[optimizer]


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[Undisturbed]:
    with dspex.Supervisor(pools=POOLS) as running:
        yield Undisturbed(running)


def begun(optimizer: Any, lm: FakeLM, sup: dspex.Supervisor, **how: Any) -> dspex.OptimizationJob:
    given: Any = {"metric": is_right, **OPTIMIZERS[optimizer], **how}
    return dspex.optimize(
        "question -> answer", ROWS, optimizer=optimizer, lm=lm, supervisor=sup, progress=False, wait=False, **given
    )


def found(best: Any) -> dict[str, Any]:
    facts = {"score": best.score, "state": best.program.state, "trials": [shown(trial) for trial in best.trials]}
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def asked(lm: FakeLM) -> Counter[str]:
    return Counter(request.text for request in lm.requests)


def kill_worker(sup: dspex.Supervisor) -> None:
    if pid := sup.pool("mipro").stats()["workers"][0]["pid"]:  # none while the next one is made
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "labeled"])
def test_a_killed_worker_is_followed_by_one_that_goes_on(
    sup: dspex.Supervisor, undisturbed: Undisturbed, seeded: Random, optimizer: str
) -> None:
    """chaos: at three random moments of one job; nothing but what was under way is asked again."""
    expected, once = undisturbed.of(optimizer)
    moments = sorted(seeded.sample(range(2, once.total() - 1), 3))
    with endpoint(LATENCY) as lm:
        job = begun(optimizer, lm, sup)
        for moment in moments:
            lm.wait_for(lambda moment=moment: len(lm.requests) >= moment, 60)  # type: ignore[misc]
            kill_worker(sup)
        best = job.result(90)
        again = asked(lm) - once
        assert once - asked(lm) == Counter() and again.total() <= IN_FLIGHT * len(moments), again.total()
    kinds = Counter(event.kind for event in job.events())
    assert 1 <= kinds["worker_died"] == kinds["resumed"] == job.progress.workers - 1 <= 3
    assert found(best) == expected
    assert job.state == "done" and [trial["trial"] for trial in best.trials] == list(range(len(best.trials)))


TWICE = ("bootstrap", "simba", "random_search", "copro", "infer_rules", "miprov2", "optuna", "better_together")
SLOW = [pytest.param(name, 2, marks=pytest.mark.slow) for name in TWICE]


@pytest.mark.parametrize("optimizer, deaths", [("gepa", 2), ("miprov2", 1), *SLOW])
def test_a_killed_host_is_followed_by_one_that_goes_on(
    tmp_path: Path, undisturbed: Undisturbed, seeded: Random, optimizer: str, deaths: int
) -> None:
    """chaos: hosts are killed at random moments, the last ends the job; each begins with the journal alone."""
    expected, once = undisturbed.of(optimizer)
    moments = sorted(seeded.sample(range(3, once.total() - 1), deaths))
    journal = tmp_path / "job.jsonl"
    with endpoint(LATENCY) as lm:
        for verb, moment in zip(("begin", "resume"), moments, strict=False):
            with host(lm, journal, optimizer, verb) as running:
                lm.wait_for(lambda moment=moment: len(lm.requests) >= moment, 60)  # type: ignore[misc]
                running.kill()
                running.wait(10)
        with host(lm, journal, optimizer, "resume") as running:
            assert running.wait(60) == 0
        again = asked(lm) - once
        assert once - asked(lm) == Counter() and again.total() <= IN_FLIGHT * len(moments), again.total()
    assert json.loads(Path(f"{journal}.result").read_text()) == expected


@contextlib.contextmanager
def host(lm: FakeLM, journal: Path, optimizer: str, verb: str) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [lm.api_base, str(lm.api_key), str(journal), optimizer, verb]
    command = [sys.executable, "-m", "tests.support.programs.job_tasks", *arguments]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait(10)


def test_a_job_fails_once_its_fourth_worker_dies(sup: dspex.Supervisor) -> None:
    """chaos: the error is the last worker's, and holds the best so far."""
    with endpoint(LATENCY) as lm:
        job = begun("random_search", lm, sup)
        for event in job.events():
            if event.kind == "candidate" or (event.kind == "progress" and event.facts["examples"] > 10):
                kill_worker(sup)
    with pytest.raises(dspex.WorkerDied) as caught:
        job.result(10)
    assert job.state == "failed" and job.progress.workers == 4
    assert caught.value.partial is not None and caught.value.partial.score == job.partial.score  # type: ignore[union-attr]
    assert caught.value.partial.trials[0]["kind"] == "baseline"


def test_a_worker_over_its_cap_is_replaced_and_the_job_goes_on(tmp_path: Path) -> None:
    """chaos: a metric in the worker takes all its memory, once; its successor comes to the end."""
    (tmp_path / "hungry_metric.py").write_text(HUNGRY.format(mark=str(tmp_path / "eaten")))
    heavy = dspex.PoolConfig(
        "mipro", size=1, memory_cap="600MiB", imports=["hungry_metric"], path=[str(tmp_path), str(ROOT)]
    )
    with dspex.Supervisor(pools=[POOLS[0], heavy]) as sup, endpoint(LATENCY) as lm:
        job = begun("random_search", lm, sup, metric="hungry_metric:is_right")
        assert job.result(60).score is not None and (tmp_path / "eaten").exists()
        once = Counter(request.text for request in lm.requests)
        plain = begun("random_search", lm, sup, metric=is_right).result(60)
        both = Counter(request.text for request in lm.requests)
    kinds = Counter(event.kind for event in job.events())
    assert kinds["worker_died"] == 1 and (once - (both - once)).total() <= IN_FLIGHT
    assert job.result().program.state == plain.program.state


HUNGRY = """
import time
from pathlib import Path

CALLS = []


def is_right(example, prediction, trace=None):
    CALLS.append(1)
    mark = Path({mark!r})
    if len(CALLS) == 30 and not mark.exists():
        mark.touch()
        held = bytearray(2_000_000_000)
        held[::4096] = bytes([1]) * len(held[::4096])
        time.sleep(30)
    return example["answer"] == prediction["answer"]
"""
