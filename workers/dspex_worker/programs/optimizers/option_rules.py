"""What the values of optimizers' options may be. DSPy finds most of what is wrong after the program was paid for.

Data and checks: `optimizers` says which optimizer has which option. None means that an option is not given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import dspy

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


def path(value: Any) -> str | None:
    """A folder's path."""
    return None if isinstance(value, str) and value.strip() else "the path of a folder"


def module(value: Any) -> str | None:
    """A program, which was made of what was given."""
    return None if isinstance(value, dspy.Module) else "a program"


def settings(value: Any) -> str | None:
    """DSPy's settings: a language model and an adapter."""
    return None if isinstance(value, Mapping) and value.keys() <= {"lm", "adapter"} else "a dict of lm and adapter"


def called(value: Any) -> str | None:
    """Something that can be called."""
    return None if callable(value) else "something that can be called, or its import path 'module:name'"


def selector(value: Any) -> str | None:
    """GEPA's component selector."""
    if isinstance(value, str):
        return None if value in ("round_robin", "all") else "'round_robin', 'all', or a function or its import path"
    return called(value)


def places(value: Any) -> str | None:
    """The places of random search's candidates."""
    is_one = isinstance(value, list | tuple) and len(value) > 0
    is_one = is_one and all(isinstance(each, int) and not isinstance(each, bool) and each >= -3 for each in value)
    return None if is_one else "a list of whole numbers, -3 or more"


def share(value: Any) -> str | None:
    """A share below one."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return None if is_one else "a number of 0 or more, below 1"


def steps(value: Any) -> str | None:
    """BetterTogether's optimizers."""
    is_one = isinstance(value, Mapping) and len(value) > 0
    is_one = is_one and all(
        isinstance(each, Mapping) and isinstance(each.get("optimizer"), str) for each in value.values()
    )
    return None if is_one else "a dict of names to {'optimizer': name, **its options}"


_OF_GEPA: Mapping[str, Rule] = {  # what `gepa.optimize` takes and DSPy does not give it
    "frontier_type": among("instance", "objective", "hybrid", "cartesian"),
    "batch_sampler": lambda value: (
        None if value == "epoch_shuffled" or not isinstance(value, str) else "'epoch_shuffled'"
    ),
    "merge_val_overlap_floor": whole(1),
    "stop_callbacks": lambda value: None,
    "callbacks": lambda value: None,
    "use_cloudpickle": flag,
    "cache_evaluation": flag,
    "val_evaluation_policy": lambda value: (
        None if value == "full_eval" or not isinstance(value, str) else "'full_eval'"
    ),
    "acceptance_criterion": lambda value: (
        None
        if value in ("strict_improvement", "improvement_or_equal") or not isinstance(value, str)
        else "'strict_improvement' or 'improvement_or_equal'"
    ),
    "sampling_strategy": lambda value: None,
    "selection_strategy": lambda value: None,
    "reflection_strategy": lambda value: None,
}


def of_gepa(value: Any) -> str | None:
    """The arguments of `gepa.optimize` that DSPy passes on, and does not give itself."""
    if not isinstance(value, Mapping):
        return "a dict of arguments of gepa.optimize"
    for name, given in value.items():
        if name not in _OF_GEPA:
            return f"a dict of {', '.join(_OF_GEPA)}: {name!r} is not among what is passed on to gepa.optimize"
        if given is not None and (expected := _OF_GEPA[name](given)) is not None:
            return f"a dict whose {name!r} is {expected}"
    return None


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
    "candidate_selection_strategy": among("pareto", "current_best", "epsilon_greedy", "top_k_pareto"),
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
    "teacher": module,
    "teacher_settings": settings,
    "log_dir": path,
    "provide_traceback": flag,
    "track_stats": flag,
    "track_best_outputs": flag,
    "warn_on_score_mismatch": flag,
    "component_selector": selector,
    "instruction_proposer": called,
    "code_proposer": called,
    "gepa_kwargs": of_gepa,
    "restrict": places,
    "labeled_sample": flag,
    "optimizers": steps,
    "strategy": lambda value: None if isinstance(value, str) and value.strip() else "a text such as 'p -> q'",
    "valset_ratio": share,
    "shuffle_trainset_between_steps": flag,
}
_OF_ONE: Mapping[tuple[str, str], Rule] = {
    ("random_search", "max_bootstrapped_demos"): whole(1),  # it draws how many from 1 to so many
    ("optuna", "max_bootstrapped_demos"): whole(1),
    ("optuna", "max_demos"): whole(1),  # a candidate is one of them
    ("optuna", "num_candidate_programs"): whole(1),
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
    _require_together(optimizer, given)
    return given


def _require_together(optimizer: str, given: Mapping[str, Any]) -> None:
    """Check options that go with another only."""
    if given.get("track_best_outputs") and not given.get("track_stats"):
        raise invalid_input(
            f"track_best_outputs of {optimizer} is True without track_stats=True, which keeps them.",
            "track_best_outputs",
        )
    sampler = (given.get("gepa_kwargs") or {}).get("batch_sampler", "epoch_shuffled")
    if not isinstance(sampler, str) and "reflection_minibatch_size" in given:
        raise invalid_input(
            f"reflection_minibatch_size of {optimizer} is {given['reflection_minibatch_size']!r}, and gepa_kwargs "
            f"holds a batch_sampler, which says it: give one of them.",
            "reflection_minibatch_size",
        )
    restrict, last = given.get("restrict"), given.get("num_candidate_programs", 16)
    if restrict and not any(place < last for place in restrict):
        raise invalid_input(
            f"restrict of {optimizer} is {restrict!r}; its candidates are -3 to {last - 1}.", "restrict"
        )


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
