"""Parity: answers over which libraries fail (nested beyond all bounds) end a call where they end DSPy's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import dspex
from tests.support.parity.comparison import Report
from tests.support.parity.one_case import UNKNOWN, agreed, call, case
from tests.support.parity.oracle import Oracle
from tests.support.parity.worker_side import WorkerSide

pytestmark = pytest.mark.parity

DEEP = {
    "lists": "[" * 3000 + "]" * 3000,
    "objects": '{"a":' * 2000 + "1" + "}" * 2000,
    "not closed": "[" * 5000,
    "braces": "{" * 3000,
    "parentheses": "(" * 900,
    "signs": "-" * 3000 + "1",
    "beyond repair": '{\n  "```json\n[1]\n```a": []\n}',
}


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerSide]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        side = WorkerSide(supervisor)
        yield side
        side.close()


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("annotation", ["list[int]", "Any"])
@pytest.mark.parametrize("what", DEEP)
def test_answers_beyond_all_bounds_are_unreadable_after_as_many_requests_as_dspys(
    oracle: Oracle, worker: WorkerSide, what: str, annotation: str, adapter: str
) -> None:
    """parity: DSPy lets out RecursionError, json_repair's own errors; here it is AdapterParseError, as late."""
    text = f"[[ ## a ## ]]\n{DEEP[what]}" if adapter == "chat" else f'{{"a": {DEEP[what]}}}'
    one = case(f"q -> a: {annotation}", adapter=adapter, inputs={"q": "?"}, calls=[call(text, model=UNKNOWN)])
    native = agreed(oracle, one)["calls"][0]
    found, report = worker.call(one, one["calls"][0]), Report()
    report.add_calls(one, [found], oracle.ask([one])[0])
    assert not report.differences, report.differences
    assert found["outcome"][1] == native["outcome"][1] == "AdapterParseError"
    assert found["bodies"] == native["bodies"]
