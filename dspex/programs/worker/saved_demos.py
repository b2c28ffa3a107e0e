"""Put a program's demos into its state, where a file holds them: a program serves its own before the state's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...adapters.plain_data import is_plain
from . import worker_answers
from .program_spec import ProgramSpec
from .worker_questions import answer_about


def state_with_demos(program: ProgramSpec) -> Mapping[str, Any]:
    """Return the state that says all that the program serves; empty if it has neither state nor demos.

    A worker is asked where it takes DSPy to write the demos: if there is no state yet, or they hold DSPy's types.
    """
    state, demos = program.state, [dict(demo.items()) for demo in program.demos]
    if not demos:
        return state or {}
    if state is None or not all(map(is_plain, demos)):
        return dumped(program).state
    if "demos" in state and "signature" in state:  # of a bare predictor
        return {**state, "demos": demos}
    parts = [name for name, part in state.items() if isinstance(part, Mapping) and "demos" in part]
    if len(parts) != 1:
        return dumped(program).state  # a worker refuses demos for several predictors, and says so
    return {**state, parts[0]: {**state[parts[0]], "demos": demos}}


def dumped(program: ProgramSpec) -> worker_answers.SavedState:
    """Return the state of a program, with its demos, as DSPy in a worker saves it. Blocks."""
    return worker_answers.state(*answer_about(program, "state_of"))
