"""Make each of DSPy's optimizers ready: constructed, before anything is paid, with the call that compiles.

Importing this file imports DSPy but no optional package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import dspy
from dspy.teleprompt import BetterTogether, BootstrapFewShotWithOptuna

from ..dspy_errors import invalid_input
from .option_rules import require_demos

Examples = Sequence[dspy.Example]
Compiling = Callable[[], dspy.Module]
BOOTSTRAP = (
    *("max_bootstrapped_demos", "max_labeled_demos", "metric_threshold", "max_rounds", "max_errors"),
    "teacher_settings",
)
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
    has_valset: bool = True  # else `valset` is what DSPy would take of the trainset

    def pick(self, *names: str) -> dict[str, Any]:
        """Return those of the job's options that are set."""
        return {name: self.options[name] for name in names if name in self.options}


def miprov2(job: OptimizerTask) -> Compiling:
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
        **job.pick("seed", "init_temperature", "metric_threshold", "max_errors", "teacher_settings", "log_dir"),
        **job.pick("track_stats"),
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
        **job.pick("teacher", "provide_traceback"),
    )


def gepa(job: OptimizerTask) -> Compiling:
    names = ("auto", "max_full_evals", "max_metric_calls")
    given = job.pick(
        *("candidate_selection_strategy", "skip_perfect_score", "use_merge", "max_merge_invocations", "failure_score"),
        *("perfect_score", "add_format_failure_as_feedback", "reflection_minibatch_size", "seed", "log_dir"),
        *("component_selector", "instruction_proposer", "code_proposer", "track_stats", "track_best_outputs"),
        *("warn_on_score_mismatch", "gepa_kwargs"),
    )
    if given.get("gepa_kwargs", {}).get("batch_sampler", "epoch_shuffled") != "epoch_shuffled":
        given["reflection_minibatch_size"] = None  # a sampler of one's own says it
    if "log_dir" in given:  # classes that signatures are made of can be in its files by value only
        given["gepa_kwargs"] = {"use_cloudpickle": True, **given.get("gepa_kwargs", {})}
    made = dspy.GEPA(
        metric=job.metric,
        reflection_lm=job.prompt_lm,
        num_threads=_threads(job),
        **(job.pick(*names) or {"auto": "light"}),
        **given,
    )
    return partial(made.compile, job.program, trainset=list(job.trainset), valset=list(job.valset))


def bootstrap(job: OptimizerTask) -> Compiling:
    made = dspy.BootstrapFewShot(metric=job.metric, **job.pick(*BOOTSTRAP))
    return partial(made.compile, job.program, trainset=list(job.trainset), **job.pick("teacher"))


def random_search(job: OptimizerTask) -> Compiling:
    options = job.pick(*BOOTSTRAP, "num_candidate_programs", "stop_at_score")
    made = dspy.BootstrapFewShotWithRandomSearch(metric=job.metric, num_threads=_threads(job), **options)
    how = job.pick("teacher", "restrict", "labeled_sample")
    return partial(made.compile, job.program, trainset=list(job.trainset), valset=list(job.valset), **how)


def optuna(job: OptimizerTask) -> Compiling:
    options = job.pick("max_labeled_demos", "max_rounds", "num_candidate_programs", "teacher_settings")
    demos = job.options.get("max_bootstrapped_demos", 4)
    made = BootstrapFewShotWithOptuna(
        metric=job.metric, num_threads=_threads(job), max_bootstrapped_demos=demos, **options
    )
    compiling = partial(
        made.compile,
        job.program,
        trainset=list(job.trainset),
        valset=list(job.valset),
        max_demos=job.options.get("max_demos", demos),
        **job.pick("teacher"),
    )
    return partial(_seeded, compiling, job.options.get("seed", 0))


def _seeded(compiling: Compiling, seed: int) -> dspy.Module:
    """Compile with a seeded sampler: DSPy gives its study none, so a job that is resumed would come to others."""
    import optuna as package  # here: the job may want another optimizer

    made = package.create_study
    package.create_study = partial(made, sampler=package.samplers.TPESampler(seed=seed))
    try:
        return compiling()
    finally:
        package.create_study = made


def labeled(job: OptimizerTask) -> Compiling:
    made = dspy.LabeledFewShot(**job.pick("k"))
    return partial(made.compile, job.program, trainset=list(job.trainset), **job.pick("sample"))


def copro(job: OptimizerTask) -> Compiling:
    options = job.pick("breadth", "depth", "init_temperature", "track_stats")
    made = dspy.COPRO(prompt_model=job.prompt_lm, metric=job.metric, **options)
    shown = {"num_threads": _threads(job), "display_progress": False, "display_table": 0}
    return partial(made.compile, job.program, trainset=list(job.trainset), eval_kwargs=shown)


def simba(job: OptimizerTask) -> Compiling:
    options = job.pick("num_candidates", "max_steps", "max_demos", "demo_input_field_maxlen", "teacher_settings")
    options |= job.pick("temperature_for_sampling", "temperature_for_candidates")
    batch = min(int(job.options.get("bsize", 32)), len(job.trainset))
    made = dspy.SIMBA(metric=job.metric, prompt_model=job.prompt_lm, bsize=batch, num_threads=_threads(job), **options)
    return partial(made.compile, job.program, trainset=list(job.trainset), seed=job.options.get("seed", 0))


def infer_rules(job: OptimizerTask) -> Compiling:
    options = job.pick(*BOOTSTRAP, "num_candidates", "num_rules")
    made = dspy.InferRules(metric=job.metric, num_threads=_threads(job), **options)
    sets = {"trainset": list(job.trainset), "valset": list(job.valset)}
    return cast("Compiling", partial(made.compile, job.program, **sets, **job.pick("teacher")))


def better_together(
    job: OptimizerTask, steps: Mapping[str, tuple[Callable[[OptimizerTask], Compiling], Mapping[str, Any]]]
) -> Compiling:
    """Return BetterTogether's call; `steps` are how its optimizers are made ready, and their options, by their keys."""
    made: dict[str, Any] = {}
    arguments: dict[str, dict[str, Any]] = {}
    for key, (prepare, options) in steps.items():
        step = cast("partial[dspy.Module]", prepare(replace(job, options=options)))
        step = step.args[0] if step.func is _seeded else step
        made[key] = cast("Any", step.func).__self__
        own = {name: value for name, value in step.keywords.items() if name not in ("trainset", "valset")}
        arguments[key] = own
    for predictor in job.program.predictors():
        predictor.lm = predictor.lm or job.lm  # BetterTogether wants each to have one
    strategy = str(job.options.get("strategy") or BetterTogether.STRAT_SEP.join(made))
    if others := [step for step in strategy.split(BetterTogether.STRAT_SEP) if step not in made]:
        raise invalid_input(
            f"strategy of better_together is {strategy!r}, and {others[0]!r} is none of its optimizers: "
            f"{', '.join(made)}, with ' -> ' between them.",
            "strategy",
        )
    together: Any = BetterTogether(metric=job.metric, **made)
    return cast(
        "Compiling",
        partial(
            together.compile,
            job.program,
            trainset=list(job.trainset),
            valset=list(job.valset) if job.has_valset else None,
            num_threads=_threads(job),
            strategy=strategy,
            optimizer_compile_args=arguments,
            **job.pick("seed", "max_errors", "provide_traceback", "valset_ratio", "shuffle_trainset_between_steps"),
        ),
    )


def _threads(job: OptimizerTask) -> int:
    return int(job.options.get("num_threads") or DEFAULT_THREADS)
