"""Parity: types and values of the user's own, in real workers and in a host that has imported DSPy, as in DSPy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from tests.support.parity.cases import Cases
from tests.support.parity.comparison import Report
from tests.support.parity.oracle import Oracle, is_error
from tests.support.parity.worker_side import WorkerSide, worker_case

CASES = int(os.environ.get("DSPEX_PARITY_CASES", "60"))
SEED = int(os.environ.get("DSPEX_PARITY_SEED", "20261130"))

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerSide]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        side = WorkerSide(supervisor)
        yield side
        side.close()


def test_calls_in_workers_send_dspys_bytes_and_give_its_values(oracle: Oracle, worker: WorkerSide) -> None:
    """parity: signatures with types of every kind, importable or not, demos and odd inputs, in a real worker."""
    supply, report = Cases(SEED), Report()
    for _ in range(CASES):
        case = worker_case(supply.case())
        if case is not None:
            report.add_calls(case, [worker.call(case, call) for call in case["calls"]], oracle.ask([case])[0])
    print(f"seed {SEED}: {report.comparisons}")
    assert not report.differences, f"{len(report.differences)} differences:\n" + "\n".join(report.differences[:3])
    assert report.comparisons["calls"] > CASES / 2 and report.comparisons["request bodies"] > CASES / 4


def test_dspys_own_classes_and_values_are_read_as_dspy_means_them(oracle: Oracle) -> None:
    """parity: `dspy.Signature` classes, `dspy.Image` and the like, in a process that has imported both."""
    supply = Cases(SEED + 1)
    cases: list[dict[str, Any]] = []
    while len(cases) < 3 * CASES:
        case = supply.case()
        docs = case["instructions"] if isinstance(case["instructions"], tuple) else (None, "Do.")
        cases.append({**case, "kind": "own", "form": "class", "instructions": docs})
    compared = 0
    for case, answer in zip(cases, oracle.ask(cases), strict=True):
        if is_error(answer):
            continue  # DSPy itself refuses the class
        if is_error(answer["native"]) or answer["native"][:1] == ("routed",):
            assert is_error(answer["dspy"]) or answer["native"][0] == "routed", (case["fields"], answer)
            continue
        assert answer["native"] == answer["dspy"], case["fields"]
        compared += 1
    assert compared > CASES
