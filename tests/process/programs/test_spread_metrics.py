"""Process: metrics by import path whose work the workers of a pool share, in evaluations and optimizations."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import MetricTimeout, SettingsError, UnknownName
from dspex.testing import FakeLM
from tests.support.paths import ROOT

ROWS = [{"question": f"q{number}", "answer": "a" if number % 3 else "b"} for number in range(12)]
HERE = "DSPEX_TEST_FOLDER"
SEARCH: Any = {"optimizer": "random_search", "num_candidate_programs": 2, "max_bootstrapped_demos": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spread")


@pytest.fixture(scope="module")
def sup(folder: Path) -> Iterator[dspex.Supervisor]:
    how: Any = {"imports": [__name__], "env": {"PYTHONPATH": f"{ROOT}:{ROOT}/workers", HERE: str(folder)}}
    pools = [
        dspex.PoolConfig("dspy", size=1, **how),
        dspex.PoolConfig("mipro", size=2, cancel_grace=0.3, **how),
        dspex.PoolConfig("scores", bridge="dspy", size=3, concurrency=1, cancel_grace=0.3, **how),
        dspex.PoolConfig("faults", bridge="faults", size=1),
    ]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: {"answer": "a"}) as fake:
        yield fake


@pytest.fixture
def program(sup: dspex.Supervisor, lm: FakeLM) -> Any:
    return dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)


def _note(name: str) -> Path:
    path = Path(os.environ[HERE]) / name
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return path


def noting(example: Any, pred: Any, trace: Any = None) -> bool:
    import time

    _note("traced" if trace is not None else "scored")
    time.sleep(0.02)
    return bool(example.answer == pred.answer)


def dies_once(example: Any, pred: Any, trace: Any = None) -> bool:
    if example.question == "q5" and len(_note("dying").read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return bool(example.answer == pred.answer)


def hangs(example: Any, pred: Any, trace: Any = None) -> bool:
    import time

    time.sleep(3600 if example.question == "q2" else 0)
    return True


def _pids(sup: dspex.Supervisor, pool: str) -> set[int]:
    return {row["pid"] for row in sup.stats()[pool]["workers"]}


@pytest.mark.parametrize("pool", ["scores", "mipro"])
def test_an_evaluation_is_scored_by_all_workers_of_the_pool(
    sup: dspex.Supervisor, program: Any, folder: Path, pool: str
) -> None:
    """process: the rows' scores are those of the usual pool, and every worker gave some."""
    usual = dspex.evaluate(program, ROWS, f"{__name__}:noting")
    (folder / "scored").unlink()
    found = dspex.evaluate(program, ROWS, f"{__name__}:noting", pool=pool, num_threads=6)
    assert [row.score for row in found.rows] == [row.score for row in usual.rows]
    assert set(map(int, (folder / "scored").read_text().split())) == _pids(sup, pool)


@pytest.mark.parametrize("pool", ["scores", "mipro"])
def test_an_optimizer_decides_the_same_with_its_metric_spread(
    sup: dspex.Supervisor, program: Any, folder: Path, pool: str
) -> None:
    """parity: trials, scores and state are those of the metric in the optimizer's own worker; traces stay there."""
    alone = dspex.optimize(program, ROWS, metric=f"{__name__}:noting", **SEARCH)
    for name in ("scored", "traced"):
        (folder / name).unlink(missing_ok=True)
    spread = dspex.optimize(program, ROWS, metric=f"{__name__}:noting", metric_pool=pool, **SEARCH)
    assert spread.program.state == alone.program.state and spread.score == alone.score
    assert [trial["score"] for trial in spread.trials] == [trial["score"] for trial in alone.trials]
    scored = set(map(int, (folder / "scored").read_text().split()))
    assert scored <= _pids(sup, pool) and (pool == "mipro" or len(scored) == 3)
    assert set(map(int, (folder / "traced").read_text().split())) <= _pids(sup, "mipro")


def test_a_worker_that_dies_while_it_scores_changes_no_score(program: Any, folder: Path) -> None:
    """chaos: another scores the example."""
    best = dspex.optimize(program, ROWS, optimizer="labeled", metric=f"{__name__}:dies_once", metric_pool="scores")
    assert best.baseline_score == 66.67 and best.errors["metric"] == 0
    assert len((folder / "dying").read_text().split()) >= 2


def test_a_spread_metric_that_hangs_ends_its_job(program: Any) -> None:
    """process: the error names the example, and the pool serves the next job."""
    how: Any = {"optimizer": "labeled", "metric": f"{__name__}:hangs", "metric_pool": "scores"}
    with pytest.raises(MetricTimeout, match=r"trainset\[2\] within 1 s"):
        dspex.optimize(program, ROWS[:4], metric_timeout=1.0, **how)
    assert dspex.optimize(program, ROWS[:2], **how).score == 100.0


@pytest.mark.parametrize(
    ("metric", "pool", "error"),
    [
        (lambda e, p, trace=None: True, "scores", SettingsError),
        ("exact_match", "scores", SettingsError),
        (f"{__name__}:noting", "faults", SettingsError),
        (f"{__name__}:noting", "none", UnknownName),
        (f"{__name__}:absent", "scores", UnknownName),
    ],
)
def test_a_pool_that_cannot_score_costs_nothing(program: Any, lm: FakeLM, metric: Any, pool: str, error: Any) -> None:
    """process: refused before a model is asked, by both."""
    with pytest.raises(error):
        dspex.optimize(program, ROWS, optimizer="labeled", metric=metric, metric_pool=pool)
    with pytest.raises(error):
        dspex.evaluate(program, ROWS, metric, pool=pool)
    assert not lm.requests
