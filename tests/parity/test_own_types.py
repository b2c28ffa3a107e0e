"""Parity: types and values of the user's own, in real workers and in a host that has imported DSPy, as in DSPy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from tests.support.parity.cases import Cases
from tests.support.parity.comparison import Report
from tests.support.parity.one_case import UNKNOWN, agreed, call, case, field, out
from tests.support.parity.oracle import Oracle, is_error
from tests.support.parity.worker_side import WorkerSide, worker_case

CASES = int(os.environ.get("DSPEX_PARITY_CASES", "60"))
SEED = int(os.environ.get("DSPEX_PARITY_SEED", "20261130"))

pytestmark = pytest.mark.parity

ANSWER = "[[ ## a ## ]]\nok\n\n[[ ## completed ## ]]"


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
        one = worker_case(supply.case())
        if one is not None:
            report.add_calls(one, [worker.call(one, each) for each in one["calls"]], oracle.ask([one])[0])
    print(f"seed {SEED}: {report.comparisons}")
    assert not report.differences, f"{len(report.differences)} differences:\n" + "\n".join(report.differences[:3])
    assert report.comparisons["calls"] > CASES / 3 and report.comparisons["request bodies"] > CASES / 4


IMAGE = ("dspy", "Image", {"url": "https://pictures.example/cat.png"})
CALLS = ("dspy", "ToolCalls", {"tool_calls": [("dspy", "ToolCalls.ToolCall", {"name": "f", "args": {"a": 1}})]})
HELD: dict[str, Any] = {
    "tuple": (IMAGE, 1),
    "tuple[Any, ...]": (IMAGE, CALLS),
    "list[tuple]": [(1, IMAGE)],
    "dict[str, tuple[Any, int]]": {"k": (CALLS, 1)},
    "tuple[int, list]": (1, [IMAGE]),
    "Union[int, tuple]": (IMAGE,),
    "list": [IMAGE, {"k": CALLS}],
    "Any": {"k": [IMAGE]},
}


@pytest.mark.parametrize("annotation", HELD)
def test_values_of_dspys_types_stay_what_they_are_in_open_places(
    oracle: Oracle, worker: WorkerSide, annotation: str
) -> None:
    """parity: images and tool calls in tuples, lists and mappings of anything: natively and in a worker."""
    one = case([field("x", annotation), out("a")], inputs={"x": HELD[annotation]}, calls=[call(ANSWER, model=UNKNOWN)])
    agreed(oracle, one)
    report = Report()
    report.add_calls(one, [worker.call(one, each) for each in one["calls"]], oracle.ask([one])[0])
    assert not report.differences, report.differences


def test_dspys_own_classes_and_values_are_read_as_dspy_means_them(oracle: Oracle) -> None:
    """parity: `dspy.Signature` classes, `dspy.Image` and the like, in a process that has imported both."""
    supply = Cases(SEED + 1)
    cases: list[dict[str, Any]] = []
    while len(cases) < 3 * CASES:
        one = supply.case()
        docs = one["instructions"] if isinstance(one["instructions"], tuple) else (None, "Do.")
        cases.append({**one, "kind": "own", "form": "class", "instructions": docs})
    compared = 0
    for one, answer in zip(cases, oracle.ask(cases), strict=True):
        if is_error(answer):
            continue  # DSPy itself refuses the class
        if is_error(answer["native"]) or answer["native"][:1] == ("routed",):
            assert is_error(answer["dspy"]) or answer["native"][0] == "routed", (one["fields"], answer)
            continue
        assert answer["native"] == answer["dspy"], one["fields"]
        compared += 1
    assert compared > CASES
