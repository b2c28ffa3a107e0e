"""What the values of optimizers' options may be. DSPy finds most of what is wrong after the program was paid for.

Pure data and checks: `optimizers` says which optimizer has which option. None means that an option is not given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..dspy_errors import invalid_input

Rule = Callable[[Any], str | None]  # what the value would have to be, None if it is that


def whole(least: int, most: int | None = None) -> Rule:
    """A whole number within bounds."""
    upto = "or more" if most is None else f"to {most}"
    expected = f"a whole number, {least} {upto}"

    def rule(value: Any) -> str | None:
        is_one = isinstance(value, int) and not isinstance(value, bool)
        return None if is_one and value >= least and (most is None or value <= most) else expected

    return rule


def number(least: float = -math.inf, *, above: float = -math.inf) -> Rule:
    """A finite number, of at least so much or above so much."""
    bound = f", above {above:g}" if above > -math.inf else f", {least:g} or more" if least > -math.inf else ""

    def rule(value: Any) -> str | None:
        is_one = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return None if is_one and value >= least and value > above else f"a number{bound}"

    return rule


def among(*known: str) -> Rule:
    """One of these texts."""
    return lambda value: None if value in known and isinstance(value, str) else f"one of {', '.join(map(repr, known))}"


def flag(value: Any) -> str | None:
    """A bool."""
    return None if isinstance(value, bool) else "True or False"


RULES: Mapping[str, Rule] = {
    "auto": among("light", "medium", "heavy"),
    "seed": whole(0, 2**32 - 1),
    "num_threads": whole(1),
    "num_candidates": whole(1),
    "num_trials": whole(1),
    "init_temperature": number(0),
    "max_bootstrapped_demos": whole(0),
    "max_labeled_demos": whole(0),
    "max_rounds": whole(1),
    "max_errors": whole(0),
    "metric_threshold": number(),
    "num_candidate_programs": whole(0),
    "stop_at_score": number(),
    "k": whole(1),
    "sample": flag,
    "num_rules": whole(1),
    "minibatch": flag,
    "minibatch_size": whole(1),
    "minibatch_full_eval_steps": whole(1),
    "view_data_batch_size": whole(1),
    "program_aware_proposer": flag,
    "data_aware_proposer": flag,
    "tip_aware_proposer": flag,
    "fewshot_aware_proposer": flag,
    "max_full_evals": whole(1),
    "max_metric_calls": whole(1),
    "reflection_minibatch_size": whole(1),
    "candidate_selection_strategy": among("pareto", "current_best", "epsilon_greedy"),
    "skip_perfect_score": flag,
    "use_merge": flag,
    "max_merge_invocations": whole(0),
    "failure_score": number(),
    "perfect_score": number(),
    "add_format_failure_as_feedback": flag,
    "breadth": whole(2),
    "depth": whole(1),
    "bsize": whole(1),
    "max_steps": whole(1),
    "max_demos": whole(0),
    "demo_input_field_maxlen": whole(1),
    "temperature_for_sampling": number(above=0),
    "temperature_for_candidates": number(above=0),
}
_OF_ONE: Mapping[tuple[str, str], Rule] = {
    ("random_search", "max_bootstrapped_demos"): whole(1),  # it draws how many from 1 to so many
}
_EXCLUSIVE: Mapping[str, tuple[str, ...]] = {"gepa": ("auto", "max_full_evals", "max_metric_calls")}


def given_options(optimizer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are given, each with a value that can be, and none that excludes another.

    MIPROv2's `auto=None` is given: it says that the numbers are.

    Raises:
        Failure: InvalidInput, which names the option, its value and what it may be.
    """
    tells = {"auto"} if optimizer == "miprov2" else set()
    given = {name: value for name, value in options.items() if value is not None or name in tells}
    for name, value in given.items():
        rule = _OF_ONE.get((optimizer, name)) or RULES[name]
        if value is not None and (expected := rule(value)) is not None:
            raise invalid_input(f"{name} of {optimizer} is {value!r}; it is {expected}.", name)
    _require_one_budget(optimizer, given)
    return given


def _require_one_budget(optimizer: str, given: Mapping[str, Any]) -> None:
    if optimizer == "miprov2" and given.get("auto") is not None:
        for name in ("num_candidates", "num_trials"):
            if name in given:
                raise invalid_input(
                    f"{name} of miprov2 is {given[name]!r}, and auto is {given['auto']!r}, which says how many by "
                    f"itself: give auto or the numbers.",
                    name,
                )
    budgets = [name for name in _EXCLUSIVE.get(optimizer, ()) if given.get(name) is not None]
    if len(budgets) > 1:
        said = " and ".join(f"{name}={given[name]!r}" for name in budgets)
        raise invalid_input(f"{said} of {optimizer} exclude each other: each is the budget, so give one.", budgets[1])


def require_demos(sets: int, bootstrapped: int, labeled: int) -> None:
    """Check that MIPROv2 can draw its sets of demonstrations: those after the third have at least one of its own.

    Raises:
        Failure: InvalidInput, which DSPy finds as an empty range for random numbers, once the program was paid for.
    """
    if bootstrapped == 0 and labeled > 0 and sets > 3:
        raise invalid_input(
            f"max_bootstrapped_demos of miprov2 is 0, and {sets} candidates are asked for: DSPy draws at least one for "
            f"each after the third. Give 1 or more, num_candidates=3, or max_labeled_demos=0 too.",
            "max_bootstrapped_demos",
        )
