"""Name the optimizers that the `mipro` pool runs, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args

from ...errors import UnknownName

OptimizerName = Literal[
    "miprov2", "gepa", "bootstrap", "random_search", "labeled", "copro", "simba", "infer_rules",
    "dspy.MIPROv2", "dspy.GEPA", "dspy.BootstrapFewShot", "dspy.BootstrapFewShotWithRandomSearch",
    "dspy.LabeledFewShot", "dspy.COPRO", "dspy.SIMBA", "dspy.InferRules", "bootstrap_few_shot",
]  # fmt: skip
OPTIMIZER_NAMES: tuple[str, ...] = get_args(OptimizerName)


class OptimizerOptions(TypedDict, total=False):
    """The options of all optimizers together, as DSPy names them; a worker refuses those of another optimizer."""

    auto: Literal["light", "medium", "heavy"] | None
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
    reflection_minibatch_size: int
    candidate_selection_strategy: Literal["pareto", "current_best"]
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


_OWN = frozenset({"optimizer", "metric", "valset", "prompt_lm", "on_progress", "timeout", "adapter", "inputs"})


def require_optimizer(name: str, options: Mapping[str, Any]) -> None:
    """Check an optimizer's name, and that its options are some optimizer's; before anything is sent.

    Raises:
        UnknownName: there is no such optimizer or option.
    """
    if name not in OPTIMIZER_NAMES:
        raise UnknownName("optimizer", str(name), OPTIMIZER_NAMES)
    for option in options:
        if option not in OptimizerOptions.__optional_keys__:
            raise UnknownName("option", option, OptimizerOptions.__optional_keys__ | _OWN, where=name)
