"""Name the optimizers that the `mipro` pool runs, and their options."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from ...errors import SettingsError, UnknownName

if TYPE_CHECKING:
    from ...defaults import LMLike

OptimizerName = Literal[
    "miprov2", "gepa", "bootstrap", "random_search", "optuna", "labeled", "copro", "simba", "infer_rules",
    "better_together", "bootstrap_few_shot",
    "MIPROv2", "GEPA", "BootstrapFewShot", "BootstrapFewShotWithRandomSearch", "BootstrapRS",
    "BootstrapFewShotWithOptuna", "LabeledFewShot", "COPRO", "SIMBA", "InferRules", "BetterTogether",
    "dspy.MIPROv2", "dspy.GEPA", "dspy.BootstrapFewShot", "dspy.BootstrapFewShotWithRandomSearch", "dspy.BootstrapRS",
    "dspy.BootstrapFewShotWithOptuna", "dspy.LabeledFewShot", "dspy.COPRO", "dspy.SIMBA", "dspy.InferRules",
    "dspy.BetterTogether",
]  # fmt: skip
OPTIMIZER_NAMES: tuple[str, ...] = get_args(OptimizerName)


class OptimizerOptions(TypedDict, total=False):
    """The options of all optimizers together, as DSPy names them; a worker refuses those of another optimizer."""

    auto: Literal["light", "medium", "heavy"] | None
    teacher: Any  # a program, a signature, a saved program's path
    teacher_settings: Mapping[str, Any] | None  # its lm and its adapter
    reflection_lm: LMLike | None  # DSPy's names for prompt_lm and lm
    prompt_model: LMLike | None
    task_model: LMLike | None
    log_dir: str | os.PathLike[str] | None
    provide_traceback: bool | None
    seed: int
    num_threads: int
    num_candidates: int
    num_trials: int
    init_temperature: float
    # bootstrapped and labeled demonstrations: miprov2, bootstrap, random_search, infer_rules, labeled
    max_bootstrapped_demos: int
    max_labeled_demos: int
    max_rounds: int
    max_errors: int | None
    metric_threshold: float | None
    num_candidate_programs: int
    stop_at_score: float | None
    restrict: Sequence[int] | None
    labeled_sample: bool
    k: int
    sample: bool
    num_rules: int
    # miprov2
    minibatch: bool
    minibatch_size: int
    minibatch_full_eval_steps: int
    view_data_batch_size: int
    program_aware_proposer: bool
    data_aware_proposer: bool
    tip_aware_proposer: bool
    fewshot_aware_proposer: bool
    # gepa
    max_full_evals: int | None
    max_metric_calls: int | None
    reflection_minibatch_size: int | None
    candidate_selection_strategy: Literal["pareto", "current_best", "epsilon_greedy", "top_k_pareto"]
    component_selector: Literal["round_robin", "all"] | str | Callable[..., Any]
    instruction_proposer: str | Callable[..., Any] | None
    code_proposer: str | Callable[..., Any] | None
    track_stats: bool  # copro's too
    track_best_outputs: bool
    warn_on_score_mismatch: bool
    gepa_kwargs: Mapping[str, Any] | None
    skip_perfect_score: bool
    use_merge: bool
    max_merge_invocations: int | None
    failure_score: float
    perfect_score: float
    add_format_failure_as_feedback: bool
    # copro
    breadth: int
    depth: int
    # simba
    bsize: int
    max_steps: int
    max_demos: int
    demo_input_field_maxlen: int | None
    temperature_for_sampling: float
    temperature_for_candidates: float
    # better_together
    optimizers: Mapping[str, str | Mapping[str, Any]]
    strategy: str
    valset_ratio: float
    shuffle_trainset_between_steps: bool


def _is_plain(annotation: Any) -> bool:
    """Whether an option is a number, yes or no, or one of a few words: none that may name a file, code or an LM."""
    text = getattr(annotation, "__forward_arg__", str(annotation))
    return set(re.sub(r"Literal\[[^]]*\]", "None", text).split(" | ")) <= {"int", "float", "bool", "None"}


# What clients of a service may give.
PLAIN_OPTIONS = frozenset(name for name, kind in OptimizerOptions.__annotations__.items() if _is_plain(kind))
_OWN = frozenset({"optimizer", "metric", "valset", "prompt_lm", "on_progress", "timeout", "adapter", "inputs"})
_WEIGHTS = "it trains a model's weights, which takes a provider that finetunes; here programs are optimized, not models"
REFUSED_OPTIMIZERS: Mapping[str, str] = {
    "BootstrapFinetune": _WEIGHTS,
    "FinetuneTeleprompter": _WEIGHTS,
    "GRPO": _WEIGHTS,
    "ArborGRPO": _WEIGHTS,
    "AvatarOptimizer": (
        "it and dspy.Avatar are made with dspy.TypedPredictor, which DSPy has removed, so DSPy itself cannot make "
        "them: optimize an agent (dspex.react) with gepa or simba"
    ),
    "Ensemble": "it makes one program of several, and optimizes none: that is dspex.ensemble(programs)",
    "KNNFewShot": "it looks up demonstrations for each call, so its result is no state that a program could have",
    "SignatureOptimizer": "DSPy has given it up for COPRO",
    "Teleprompter": "it is what DSPy's optimizers are derived from, and optimizes nothing",
    "ReAnchor": "it is not among DSPy's public optimizers",
}
_TRACKERS = "a tracker connects from the worker, with a key of its own: job.events() and best.trials tell as much"
REFUSED_OPTIONS: Mapping[str, str] = {
    "use_wandb": _TRACKERS,
    "wandb_api_key": _TRACKERS,
    "wandb_init_kwargs": _TRACKERS,
    "use_mlflow": _TRACKERS,
    "verbose": "what DSPy says are events of the job (job.events())",
    "requires_permission_to_run": "DSPy has given it up",
    "eval_kwargs": "give num_threads=; the rest of it says what DSPy prints",
    "optimizer_compile_args": "an optimizer's options are beside its name: optimizers={'p': {'optimizer': ..., ...}}",
    "gepa.teacher": "DSPy's GEPA takes none",
    "bettertogether.teacher": (
        "it hands its optimizers a list of teachers, which those of prompts cannot take: give it to one of them, "
        "optimizers={'p': {'optimizer': ..., 'teacher': ...}}"
    ),
    "train_kwargs": _WEIGHTS,
    "vectorizer": "it is KNNFewShot's",
    "few_shot_bootstrap_args": "it is KNNFewShot's",
    "reduce_fn": "it is Ensemble's: dspex.ensemble(programs, reduce_fn=...)",
    "size": "it is Ensemble's: dspex.ensemble(programs, size=...)",
    "deterministic": "it is Ensemble's",
}
LM_OPTIONS: Mapping[str, str] = {  # DSPy's names for what `optimize` calls otherwise
    "reflection_lm": "prompt_lm",
    "prompt_model": "prompt_lm",
    "task_model": "lm",
}


def require_optimizer(name: Any, options: Mapping[str, Any]) -> None:
    """Check an optimizer's name, and that its options are some optimizer's; before anything is sent.

    Raises:
        UnknownName: there is no such optimizer or option.
        SettingsError: DSPy has it, and it is not offered; the message says why.
    """
    if (reason := REFUSED_OPTIMIZERS.get(str(name).removeprefix("dspy."))) is not None:
        raise SettingsError(f"The optimizer {name} is not offered: {reason}.", key="optimizer")
    if name not in OPTIMIZER_NAMES:
        raise UnknownName("optimizer", str(name), OPTIMIZER_NAMES, advice=_advice(name))
    own = str(name).removeprefix("dspy.").replace("_", "").casefold()
    for option in options:
        if (reason := REFUSED_OPTIONS.get(option) or REFUSED_OPTIONS.get(f"{own}.{option}")) is not None:
            raise SettingsError(f"The option {option} of {name} is not offered: {reason}.", key=option)
        if option not in OptimizerOptions.__optional_keys__:
            raise UnknownName("option", option, OptimizerOptions.__optional_keys__ | _OWN, where=name)


def _advice(given: Any) -> str:
    """Return what to give in the place of an optimizer of DSPy's that was made already."""
    kind = type(given)
    if isinstance(given, str) or not kind.__module__.startswith("dspy."):
        return ""
    return f" Give its name and its options: optimizer={kind.__name__!r}, ..."
