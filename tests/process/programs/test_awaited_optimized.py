"""Process: modules with `aforward` alone are optimized as any other, by the names that DSPy gives its optimizers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspex
from dspex.testing import FakeLM

ROWS = [{"question": f"capital {number}?", "answer": "Paris"} for number in range(4)]
ANSWERS = {"query": "q", "answer": "Paris", "proposed_instruction": "Be brief.", "observations": "o", "summary": "s"}
MIPRO = {"proposed_prefix_for_output_field": "A:", "program_description": "d", "module_description": "m"}


class Awaited(dspy.Module):
    """Keeps what belongs to an event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Semaphore(1)
        self.draft = dspy.Predict("question -> query")
        self.answer = dspy.ChainOfThought("question, query -> answer")

    async def aforward(self, question: str) -> Any:
        async with self.turn:
            query = (await self.draft.acall(question=question)).query
        return await self.answer.acall(question=question, query=query)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]) as running:
        yield running


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("BootstrapFewShot", {}),
        ("MIPROv2", {"num_candidates": 2, "num_trials": 2}),
        ("GEPA", {"max_metric_calls": 8}),
        ("dspy.BootstrapRS", {"num_candidate_programs": 1}),
        ("COPRO", {"breadth": 2, "depth": 1}),
    ],
)
@pytest.mark.parametrize("make", [lambda: Awaited, Awaited], ids=["class", "live"])
def test_a_module_with_aforward_alone_is_optimized(
    sup: dspex.Supervisor, tmp_path: Path, make: Any, optimizer: Any, options: dict[str, Any]
) -> None:
    """process: every copy that an optimizer makes of it is awaited; its state is DSPy's."""
    with FakeLM("```\nBe brief.\n```", by_field=ANSWERS | MIPRO) as lm:
        program = dspex.module(make(), supervisor=sup, lm=lm)
        best = dspex.optimize(program, ROWS, optimizer=optimizer, metric="exact_match", **options)
        shown = [request.text for request in lm.requests if "program_code" in request.inputs]
        assert best.score == 100.0 and best(question="capital 9?").answer == "Paris"
        assert all("async def aforward" in text for text in shown) and (optimizer != "MIPROv2" or shown)
    best.save(tmp_path / "best.json")
    plain = Awaited()
    plain.load(str(tmp_path / "best.json"))
    assert (optimizer != "BootstrapFewShot") or len(plain.draft.demos) == 4
