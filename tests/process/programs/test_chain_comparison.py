"""Process: `multi_chain_comparison` takes its attempts, and asks what DSPy asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import dspy
import pytest

import dspex
from dspex.errors import InvalidInput
from dspex.testing import FakeLM

ATTEMPTS = [
    {"reasoning": "it is large\nand old", "answer": "Paris"},
    {"rationale": "I guess", "answer": "Lyon"},
    {"reasoning": "it is in the north", "answer": "Paris"},
]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        yield running


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: {"rationale": "two of three", "reasoning": "r", "answer": "Paris"}) as fake:
        yield fake


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_asks_what_dspy_asks(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: attempts as mappings, and as predictions; blocking and awaited."""
    compare = dspex.predictor("multi_chain_comparison", "question -> answer", lm=lm, supervisor=sup)
    out = compare(completions=ATTEMPTS, question="capital?")
    asyncio.run(compare.acall(completions=ATTEMPTS, question="capital??"))
    ours = lm.requests[0].messages
    with dspy.context(lm=dspy.LM("openai/fake", api_base=lm.lm.api_base, api_key=lm.lm.api_key, cache=False)):
        theirs = dspy.MultiChainComparison("question -> answer")(completions=ATTEMPTS, question="capital?")
    assert ours == lm.requests[-1].messages
    assert (out.answer, out.rationale) == (theirs.answer, theirs.rationale) == ("Paris", "two of three")


def test_it_compares_the_answers_of_another_program(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: several completions of one call, M of them."""
    asked = dspex.chain_of_thought("question -> answer", lm=lm, supervisor=sup, n=2)(question="capital?")
    compare = dspex.predictor("multi_chain_comparison", "question -> answer", M=2, lm=lm, supervisor=sup)
    assert compare(completions=asked.completions, question="capital?").answer == "Paris"
    assert compare.inputs == ("question", "completions")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "completions"),
        ({"completions": ATTEMPTS[:2]}, "M=3"),
        ({"completions": "Paris"}, "list"),
        ({"completions": [*ATTEMPTS[:2], {"answer": "x"}]}, r"completions\[2\]"),
        ({"completions": [*ATTEMPTS[:2], 7]}, r"completions\[2\]"),
    ],
)
def test_what_it_cannot_compare_costs_nothing(
    sup: dspex.Supervisor, lm: FakeLM, given: dict[str, Any], named: str
) -> None:
    """process"""
    compare = dspex.predictor("multi_chain_comparison", "question -> answer", lm=lm, supervisor=sup)
    with pytest.raises(InvalidInput, match=named):
        compare(question="capital?", **given)
    assert not lm.requests
