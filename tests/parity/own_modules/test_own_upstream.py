"""Parity: cases of DSPy's tests of callbacks, contexts, batches, tools and streams, each inside an own module.

docs/internals/upstream-cases.md says which case is where.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity.own_modules.conftest import Both

pytestmark = pytest.mark.parity

CASES: list[tuple[str, dict[str, Any]]] = [
    ("Family", {}),
    ("Watched", {"question": "q"}),
    ("Rows", {"questions": ["q", "r"]}),
    ("Contexts", {"questions": ["q", "as json"]}),
    ("Models", {"question": "q"}),
    ("Tools", {"city": "Rome"}),
    ("Calls", {"question": "q"}),
    ("Streams", {"question": "q"}),
    ("Attempted", {"question": "q"}),
    ("Coded", {"question": "q"}),
    ("Optimizes", {"questions": ["q", "r", "s"]}),
]


@pytest.mark.parametrize(("what", "inputs"), CASES, ids=[case[0] for case in CASES])
def test_inside_a_module_it_is_as_in_dspy(both: Both, what: str, inputs: dict[str, Any]) -> None:
    """parity: what the module finds, and what is sent."""
    dspy, dspex = both(f"upstream_cases:{what}", **inputs)
    assert dspy.error is None, dspy.message
    assert dspex.outcome == dspy.outcome, dspex.message
    assert dspex.sent == dspy.sent
