"""The optimizers of DSPy that a job may name: their options, and what they need. Mostly data.

An optimizer is constructed before anything is paid; what it gives is the call that compiles. Not offered: what needs a
finetunable provider (BootstrapFinetune, GRPO), and what makes no other state of one program: `dspex.ensemble` and
`dspex.knn_few_shot` are programs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy

from ...failure import Failure
from ..dspy_errors import invalid_input, unknown_name
from . import optimizer_calls as calls
from .optimizer_calls import BOOTSTRAP, Compiling, Examples, OptimizerTask
from .option_rules import given_options


@dataclass(frozen=True, slots=True)
class Optimizer:
    """One optimizer: its options, what it needs installed, and how it is made ready to compile."""

    prepare: Callable[[OptimizerTask], Compiling]
    options: tuple[str, ...]
    needs: str | None = None
    validated: float | None = None  # without a valset, which share at the end of the trainset does DSPy take for it?
    is_step: bool = True  # whether it can be one of BetterTogether's


def _better_together(job: OptimizerTask) -> Compiling:
    return calls.better_together(job, _steps(job.options))


OPTIMIZERS: dict[str, Optimizer] = {
    "miprov2": Optimizer(
        calls.miprov2,
        (
            *("auto", "num_candidates", "num_trials", "num_threads", "seed", "init_temperature", "metric_threshold"),
            *("max_bootstrapped_demos", "max_labeled_demos", "max_errors", "minibatch", "minibatch_size"),
            *("minibatch_full_eval_steps", "view_data_batch_size", "program_aware_proposer", "data_aware_proposer"),
            *("tip_aware_proposer", "fewshot_aware_proposer", "teacher", "teacher_settings", "log_dir"),
            *("provide_traceback", "track_stats"),
        ),
        needs="optuna",
        validated=0.80,
    ),
    "gepa": Optimizer(
        calls.gepa,
        (
            *("auto", "max_full_evals", "max_metric_calls", "reflection_minibatch_size", "num_threads", "seed"),
            *("candidate_selection_strategy", "skip_perfect_score", "use_merge", "max_merge_invocations"),
            *("failure_score", "perfect_score", "add_format_failure_as_feedback", "component_selector"),
            *("instruction_proposer", "code_proposer", "track_stats", "track_best_outputs", "log_dir"),
            *("warn_on_score_mismatch", "gepa_kwargs"),
        ),
        needs="gepa",
    ),
    "bootstrap": Optimizer(calls.bootstrap, (*BOOTSTRAP, "teacher")),
    "random_search": Optimizer(
        calls.random_search,
        (
            *(*BOOTSTRAP, "teacher", "num_candidate_programs", "stop_at_score", "num_threads"),
            *("restrict", "labeled_sample"),
        ),
    ),
    "optuna": Optimizer(
        calls.optuna,
        (
            *("max_bootstrapped_demos", "max_labeled_demos", "max_rounds", "num_candidate_programs", "num_threads"),
            *("max_demos", "teacher", "teacher_settings", "seed"),
        ),
        needs="optuna",
    ),
    "labeled": Optimizer(calls.labeled, ("k", "sample")),
    "copro": Optimizer(calls.copro, ("breadth", "depth", "init_temperature", "num_threads", "track_stats")),
    "simba": Optimizer(
        calls.simba,
        (
            *("bsize", "num_candidates", "max_steps", "max_demos", "demo_input_field_maxlen", "num_threads", "seed"),
            *("temperature_for_sampling", "temperature_for_candidates", "teacher_settings"),
        ),
        needs="numpy",
    ),
    "infer_rules": Optimizer(
        calls.infer_rules, (*BOOTSTRAP, "teacher", "num_candidates", "num_rules", "num_threads"), validated=0.50
    ),
    "better_together": Optimizer(
        _better_together,
        (
            *("optimizers", "strategy", "valset_ratio", "shuffle_trainset_between_steps", "num_threads"),
            *("max_errors", "provide_traceback", "seed"),
        ),
        is_step=False,
    ),
}
NAMES = tuple(OPTIMIZERS)
_CLASSES = {
    "MIPROv2": "miprov2",
    "GEPA": "gepa",
    "BootstrapFewShot": "bootstrap",
    "BootstrapFewShotWithRandomSearch": "random_search",
    "BootstrapRS": "random_search",
    "BootstrapFewShotWithOptuna": "optuna",
    "LabeledFewShot": "labeled",
    "COPRO": "copro",
    "SIMBA": "simba",
    "InferRules": "infer_rules",
    "BetterTogether": "better_together",
}
_ALIASES = {**_CLASSES, **{f"dspy.{name}": own for name, own in _CLASSES.items()}, "bootstrap_few_shot": "bootstrap"}


def name_of(name: str) -> str:
    """Return an optimizer's name here, for any of its names."""
    return _ALIASES.get(name, name)


def optimizer_named(name: str, options: Mapping[str, Any]) -> tuple[Optimizer, dict[str, Any]]:
    """Return the optimizer and its options, once these and what it needs were checked: before anything is paid.

    Raises:
        Failure: UnknownName, InvalidInput, MissingDependency.
    """
    own = name_of(name)
    found = OPTIMIZERS.get(own)
    if found is None:
        raise unknown_name("optimizer", name, NAMES)
    for option in options:
        if option not in found.options:
            raise unknown_name("option", option, found.options, where=name)
    given = given_options(own, options)
    if found.needs is not None and importlib.util.find_spec(found.needs) is None:
        raise Failure(
            "MissingDependency",
            f"The optimizer {name!r} needs {found.needs}. Install dspex[optimizers] where the workers run.",
            package=found.needs,
            extra="optimizers",
        )
    return found, given


def prepared(name: str, optimizer: Optimizer, job: OptimizerTask) -> Compiling:
    """Return the constructed optimizer's call, to be made once the baseline is known.

    Raises:
        Failure: InvalidInput, when it cannot be constructed so, or the program has nothing to optimize.
    """
    if not job.program.predictors():
        raise invalid_input(f"{type(job.program).__name__} has no predictors, so {name} has nothing to optimize.")
    try:
        _require_alike(job.program, job.options.get("teacher"))
        return optimizer.prepare(job)
    except (TypeError, ValueError, AssertionError) as error:
        raise invalid_input(f"{name} cannot be made with these options: {error}") from error


def _require_alike(student: dspy.Module, teacher: dspy.Module | None) -> None:
    """Check that a teacher has the student's predictors, as BootstrapFewShot would once the baseline is paid."""
    if teacher is None:
        return
    bootstrap: Any = dspy.BootstrapFewShot(max_labeled_demos=0)
    bootstrap._prepare_student_and_teacher(student, teacher)
    bootstrap._prepare_predictor_mappings()


def split(
    optimizer: Optimizer, trainset: Examples, valset: Examples | None, options: Mapping[str, Any]
) -> tuple[Examples, Examples]:
    """Return the examples to learn from and those to score with; without a valset, split as DSPy would.

    Raises:
        Failure: InvalidInput, when there are too few.
    """
    if not valset and "valset_ratio" in optimizer.options:  # BetterTogether, which splits them itself
        validated = int(options.get("valset_ratio", 0.1) * len(trainset))
        return trainset, trainset[:validated] or trainset
    if valset or optimizer.validated is None:
        chosen = valset or trainset
        if not trainset or not chosen:
            raise invalid_input("An optimizer needs at least one example to learn from.", "trainset")
        return trainset, chosen
    if len(trainset) < 2:
        raise invalid_input("Without a valset, the trainset needs at least two examples.", "trainset")
    # MIPROv2 scores on the last 80 %, InferRules on the last half; both parts keep at least one example.
    cutoff = min(max(1, _learned(len(trainset), optimizer.validated)), len(trainset) - 1)
    return trainset[:cutoff], trainset[cutoff:]


def _learned(count: int, validated: float) -> int:
    """Return how many examples DSPy learns from: each optimizer rounds its own share down."""
    return int(count * 0.5) if validated == 0.5 else count - min(1000, int(count * validated))


def _steps(options: Mapping[str, Any]) -> dict[str, tuple[Callable[[OptimizerTask], Compiling], Mapping[str, Any]]]:
    """Return BetterTogether's optimizers, each with its checked options; those of DSPy that need no finetuning."""
    asked: Mapping[str, Mapping[str, Any]] = options.get("optimizers") or {"p": {"optimizer": "random_search"}}
    steps: dict[str, tuple[Callable[[OptimizerTask], Compiling], Mapping[str, Any]]] = {}
    for key, given in asked.items():
        named = str(given["optimizer"])
        optimizer, own = optimizer_named(named, {name: value for name, value in given.items() if name != "optimizer"})
        if not optimizer.is_step:
            raise invalid_input(f"{named} cannot be a step of better_together.", "optimizers")
        steps[key] = (partial(prepared, named, optimizer), own)
    return steps
