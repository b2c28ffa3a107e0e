"""The optimizers of DSPy that a job may name: their options, needs and calls. Mostly data.

An optimizer is constructed before anything is paid; what it gives is the call that compiles.

Importing this file imports DSPy but no optional package. Not offered: what needs a finetunable provider
(BootstrapFinetune, BetterTogether, GRPO), gives a program without a state (KNNFewShot, Ensemble), or is deprecated.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import dspy

from ...failure import Failure
from ..dspy_errors import invalid_input, unknown_name
from .option_rules import given_options, require_demos

Examples = Sequence[dspy.Example]
Compiling = Callable[[], dspy.Module]
_BOOTSTRAP = ("max_bootstrapped_demos", "max_labeled_demos", "metric_threshold", "max_rounds", "max_errors")
_SETS = {"light": 6, "medium": 12, "heavy": 18}  # of demonstrations, that MIPROv2 draws by itself
DEFAULT_THREADS = 4


@dataclass(frozen=True, slots=True)
class OptimizerTask:
    """One optimization, ready to be started."""

    program: dspy.Module
    metric: Callable[..., Any]
    trainset: Examples
    valset: Examples
    lm: Any
    prompt_lm: Any
    options: Mapping[str, Any]

    def pick(self, *names: str) -> dict[str, Any]:
        """Return those of the job's options that are set."""
        return {name: self.options[name] for name in names if name in self.options}


@dataclass(frozen=True, slots=True)
class Optimizer:
    """One optimizer: its options, what it needs installed, and how it is made ready to compile."""

    prepare: Callable[[OptimizerTask], Compiling]
    options: tuple[str, ...]
    needs: str | None = None
    validated: float | None = None  # without a valset, which share at the end of the trainset does DSPy take for it?


def _threads(job: OptimizerTask) -> int:
    return int(job.options.get("num_threads") or DEFAULT_THREADS)


def _miprov2(job: OptimizerTask) -> Compiling:
    # `num_candidates` and `auto` exclude each other, and `auto` is "light" unless it is given.
    candidates, trials = job.options.get("num_candidates"), job.options.get("num_trials")
    auto = job.options.get("auto", None if candidates or trials else "light")
    if auto is None:
        candidates = candidates or max(3, (trials or 6) * 2 // 3)
        trials = trials or max(3, candidates * 3 // 2)
    bootstrapped, labeled = job.options.get("max_bootstrapped_demos", 4), job.options.get("max_labeled_demos", 4)
    require_demos(candidates or _SETS[auto or "light"], bootstrapped, labeled)
    made = dspy.MIPROv2(
        metric=job.metric,
        prompt_model=job.prompt_lm,
        task_model=job.lm,
        auto=auto,
        num_candidates=candidates,
        num_threads=_threads(job),
        # compile(seed=0) would mean the constructor's seed.
        **job.pick("seed", "init_temperature", "metric_threshold", "max_errors"),
        max_bootstrapped_demos=bootstrapped,
        max_labeled_demos=labeled,
    )
    validated = min(len(job.valset), {"light": 100, "medium": 300, "heavy": 1000}.get(auto or "", 10**9))
    batch = min(int(job.options.get("minibatch_size", 35)), validated)
    return partial(
        made.compile,
        job.program,
        trainset=list(job.trainset),
        valset=list(job.valset),
        num_trials=trials,
        minibatch_size=batch,
        **{"minibatch": validated > batch} | job.pick("minibatch"),
        **job.pick("minibatch_full_eval_steps", "view_data_batch_size", "program_aware_proposer"),
        **job.pick("data_aware_proposer", "tip_aware_proposer", "fewshot_aware_proposer"),
    )


def _gepa(job: OptimizerTask) -> Compiling:
    names = ("auto", "max_full_evals", "max_metric_calls")
    budget = job.pick(*names) or {"auto": "light"}
    made = dspy.GEPA(
        metric=job.metric,
        reflection_lm=job.prompt_lm,
        num_threads=_threads(job),
        **budget,
        **job.pick(*(name for name in OPTIMIZERS["gepa"].options if name not in (*names, "num_threads"))),
    )
    return partial(made.compile, job.program, trainset=list(job.trainset), valset=list(job.valset))


def _bootstrap(job: OptimizerTask) -> Compiling:
    made = dspy.BootstrapFewShot(metric=job.metric, **job.pick(*_BOOTSTRAP))
    return partial(made.compile, job.program, trainset=list(job.trainset))


def _random_search(job: OptimizerTask) -> Compiling:
    options = job.pick(*_BOOTSTRAP, "num_candidate_programs", "stop_at_score")
    made = dspy.BootstrapFewShotWithRandomSearch(metric=job.metric, num_threads=_threads(job), **options)
    return partial(made.compile, job.program, trainset=list(job.trainset), valset=list(job.valset))


def _labeled(job: OptimizerTask) -> Compiling:
    made = dspy.LabeledFewShot(**job.pick("k"))
    return partial(made.compile, job.program, trainset=list(job.trainset), **job.pick("sample"))


def _copro(job: OptimizerTask) -> Compiling:
    options = job.pick("breadth", "depth", "init_temperature")
    made = dspy.COPRO(prompt_model=job.prompt_lm, metric=job.metric, **options)
    shown = {"num_threads": _threads(job), "display_progress": False, "display_table": 0}
    return partial(made.compile, job.program, trainset=list(job.trainset), eval_kwargs=shown)


def _simba(job: OptimizerTask) -> Compiling:
    options = job.pick("num_candidates", "max_steps", "max_demos", "demo_input_field_maxlen")
    options |= job.pick("temperature_for_sampling", "temperature_for_candidates")
    batch = min(int(job.options.get("bsize", 32)), len(job.trainset))
    made = dspy.SIMBA(metric=job.metric, prompt_model=job.prompt_lm, bsize=batch, num_threads=_threads(job), **options)
    return partial(made.compile, job.program, trainset=list(job.trainset), seed=job.options.get("seed", 0))


def _infer_rules(job: OptimizerTask) -> Compiling:
    options = job.pick(*_BOOTSTRAP, "num_candidates", "num_rules")
    made = dspy.InferRules(metric=job.metric, num_threads=_threads(job), **options)
    compiling = partial(made.compile, job.program, trainset=list(job.trainset), valset=list(job.valset))
    return cast("Compiling", compiling)


OPTIMIZERS: dict[str, Optimizer] = {
    "miprov2": Optimizer(
        _miprov2,
        (
            *("auto", "num_candidates", "num_trials", "num_threads", "seed", "init_temperature", "metric_threshold"),
            *("max_bootstrapped_demos", "max_labeled_demos", "max_errors", "minibatch", "minibatch_size"),
            *("minibatch_full_eval_steps", "view_data_batch_size", "program_aware_proposer", "data_aware_proposer"),
            *("tip_aware_proposer", "fewshot_aware_proposer"),
        ),
        needs="optuna",
        validated=0.80,
    ),
    "gepa": Optimizer(
        _gepa,
        (
            *("auto", "max_full_evals", "max_metric_calls", "reflection_minibatch_size", "num_threads", "seed"),
            *("candidate_selection_strategy", "skip_perfect_score", "use_merge", "max_merge_invocations"),
            *("failure_score", "perfect_score", "add_format_failure_as_feedback"),
        ),
        needs="gepa",
    ),
    "bootstrap": Optimizer(_bootstrap, _BOOTSTRAP),
    "random_search": Optimizer(_random_search, (*_BOOTSTRAP, "num_candidate_programs", "stop_at_score", "num_threads")),
    "labeled": Optimizer(_labeled, ("k", "sample")),
    "copro": Optimizer(_copro, ("breadth", "depth", "init_temperature", "num_threads")),
    "simba": Optimizer(
        _simba,
        (
            *("bsize", "num_candidates", "max_steps", "max_demos", "demo_input_field_maxlen", "num_threads", "seed"),
            *("temperature_for_sampling", "temperature_for_candidates"),
        ),
        needs="numpy",
    ),
    "infer_rules": Optimizer(_infer_rules, (*_BOOTSTRAP, "num_candidates", "num_rules", "num_threads"), validated=0.50),
}
NAMES = tuple(OPTIMIZERS)
_CLASSES = {
    "MIPROv2": "miprov2",
    "GEPA": "gepa",
    "BootstrapFewShot": "bootstrap",
    "BootstrapFewShotWithRandomSearch": "random_search",
    "BootstrapRS": "random_search",
    "LabeledFewShot": "labeled",
    "COPRO": "copro",
    "SIMBA": "simba",
    "InferRules": "infer_rules",
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
    for option, value in options.items():
        if option not in found.options:
            raise unknown_name("option", option, found.options, where=name)
        if not isinstance(value, bool | int | float | str | None):
            raise invalid_input(f"The option {option!r} of {name} must be plain data, not {type(value).__name__}.")
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
        return optimizer.prepare(job)
    except (TypeError, ValueError, AssertionError) as error:
        raise invalid_input(f"{name} cannot be made with these options: {error}") from error


def split(optimizer: Optimizer, trainset: Examples, valset: Examples | None) -> tuple[Examples, Examples]:
    """Return the examples to learn from and those to score with; without a valset, split as DSPy would.

    Raises:
        Failure: InvalidInput, when there are too few.
    """
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
