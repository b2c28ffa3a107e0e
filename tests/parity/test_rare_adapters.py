"""Parity: XML, BAML and two steps are DSPy's own in prompts, answers, requests and errors, natively and in workers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import dspex
from tests.support.parity.adapter_cases import RARE, AdapterCases
from tests.support.parity.comparison import Report
from tests.support.parity.oracle import Oracle, is_error
from tests.support.parity.run import compared
from tests.support.parity.worker_side import WorkerSide, worker_case

CHECKS = int(os.environ.get("DSPEX_PARITY_CHECKS", "1000"))
SEED = int(os.environ.get("DSPEX_PARITY_SEED", "20261130"))
IN_WORKERS = 60

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig("dspy", size=1, imports=["tests.support.parity.shapes"])
    with dspex.Supervisor(pools=[pool]) as supervisor:
        yield supervisor


@pytest.mark.parametrize("adapter", RARE)
def test_native_and_dspy_agree(oracle: Oracle, adapter: str) -> None:
    """parity: no message, format, answer, request body, result or error class of this seed differs."""
    report = compared(oracle, SEED, CHECKS, [adapter])
    assert not report.differences, f"{len(report.differences)} differences:\n" + "\n".join(report.differences[:3])
    assert report.comparisons["request bodies"] > CHECKS / 20 and report.comparisons["calls"] > CHECKS / 20
    assert report.errors.total() < report.total * 0.6


@pytest.mark.parametrize("adapter", RARE)
def test_workers_and_dspy_agree(oracle: Oracle, sup: dspex.Supervisor, adapter: str) -> None:
    """parity: the same cases in a real worker, against a real endpoint: bodies, values, classes of errors."""
    supply, report, side = iter(AdapterCases(SEED, [adapter])), Report(), WorkerSide(sup)
    made = 0
    try:
        while made < IN_WORKERS:
            case = worker_case(next(supply))
            if case is None:
                continue
            (theirs,) = oracle.ask([case])
            if is_error(theirs["signature"]):
                continue
            report.add_calls(case, [side.call(case, call) for call in case["calls"]], theirs)
            made += len(case["calls"])
    finally:
        side.close()
    assert not report.differences, f"{len(report.differences)} differences:\n" + "\n".join(report.differences[:3])
    assert report.comparisons["request bodies"] > IN_WORKERS / 2
