"""Process: an optimization that cannot be is refused before a model is asked; whatever DSPy allows runs to its end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import InvalidInput, SettingsError, UnknownName
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.programs import optimizer_code

ROWS = [{"question": f"q{number}", "answer": "a" if number % 2 else "b"} for number in range(6)]
OWN = "tests.support.programs.own_programs"
CODE = optimizer_code.__name__


def exact(example: Any, pred: Any, trace: Any = None) -> bool:
    return bool(example.answer == pred.answer)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    with dspex.Supervisor(
        pools=[dspex.PoolConfig("dspy", size=1, env=env), dspex.PoolConfig("mipro", size=1, env=env)]
    ) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    given = ("answer", "proposed_instruction", "proposed_prefix_for_output_field", "natural_language_rules",
             "reasoning", "observations", "summary", "program_description", "module_description", "discussion",
             )  # fmt: skip
    with FakeLM({"": {**dict.fromkeys(given, "a"), "module_advice": "{}"}}) as fake:
        yield fake


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("miprov2", {"auto": "lite"}, "auto"),
    ("miprov2", {"auto": True}, "auto"),
    ("miprov2", {"auto": "light", "num_candidates": 3}, "num_candidates"),
    ("miprov2", {"auto": "heavy", "num_trials": 3}, "num_trials"),
    ("miprov2", {"num_trials": -1}, "num_trials"),
    ("miprov2", {"num_trials": 0}, "num_trials"),
    ("miprov2", {"num_trials": 1.5}, "num_trials"),
    ("miprov2", {"num_trials": "5"}, "num_trials"),
    ("miprov2", {"num_candidates": 0}, "num_candidates"),
    ("miprov2", {"metric_threshold": "x"}, "metric_threshold"),
    ("miprov2", {"metric_threshold": math.nan}, "metric_threshold"),
    ("miprov2", {"minibatch_size": 0}, "minibatch_size"),
    ("miprov2", {"minibatch": "yes"}, "minibatch"),
    ("miprov2", {"minibatch_full_eval_steps": 0}, "minibatch_full_eval_steps"),
    ("miprov2", {"init_temperature": -1}, "init_temperature"),
    ("miprov2", {"seed": -1}, "seed"),
    ("miprov2", {"seed": 2**40}, "seed"),
    ("miprov2", {"view_data_batch_size": 0}, "view_data_batch_size"),
    ("miprov2", {"num_threads": 0}, "num_threads"),
    ("miprov2", {"num_candidates": 4, "max_bootstrapped_demos": 0}, "max_bootstrapped_demos"),
    ("gepa", {"auto": "lite"}, "auto"),
    ("gepa", {"auto": "light", "max_metric_calls": 5}, "max_metric_calls"),
    ("gepa", {"max_full_evals": 1, "max_metric_calls": 5}, "max_metric_calls"),
    ("gepa", {"max_metric_calls": 0}, "max_metric_calls"),
    ("gepa", {"reflection_minibatch_size": 0}, "reflection_minibatch_size"),
    ("gepa", {"candidate_selection_strategy": "best"}, "candidate_selection_strategy"),
    ("gepa", {"perfect_score": "1"}, "perfect_score"),
    ("gepa", {"max_merge_invocations": -1}, "max_merge_invocations"),
    ("bootstrap", {"max_bootstrapped_demos": -1}, "max_bootstrapped_demos"),
    ("bootstrap", {"max_labeled_demos": 2.0}, "max_labeled_demos"),
    ("bootstrap", {"max_rounds": 0}, "max_rounds"),
    ("bootstrap", {"max_errors": -1}, "max_errors"),
    ("bootstrap", {"max_errors": True}, "max_errors"),
    ("random_search", {"max_bootstrapped_demos": 0}, "max_bootstrapped_demos"),
    ("random_search", {"num_candidate_programs": -1}, "num_candidate_programs"),
    ("random_search", {"stop_at_score": "90"}, "stop_at_score"),
    ("labeled", {"k": 0}, "k"),
    ("labeled", {"k": -3}, "k"),
    ("labeled", {"sample": 1}, "sample"),
    ("copro", {"breadth": 1}, "breadth"),
    ("copro", {"depth": 0}, "depth"),
    ("copro", {"init_temperature": "hot"}, "init_temperature"),
    ("simba", {"bsize": 0}, "bsize"),
    ("simba", {"max_steps": 0}, "max_steps"),
    ("simba", {"max_demos": -1}, "max_demos"),
    ("simba", {"num_candidates": 0}, "num_candidates"),
    ("simba", {"temperature_for_sampling": 0}, "temperature_for_sampling"),
    ("simba", {"demo_input_field_maxlen": 0}, "demo_input_field_maxlen"),
    ("infer_rules", {"num_rules": 0}, "num_rules"),
    ("infer_rules", {"num_candidates": 0}, "num_candidates"),
    ("optuna", {"num_candidate_programs": 0}, "num_candidate_programs"),
    ("optuna", {"max_bootstrapped_demos": 0}, "max_bootstrapped_demos"),
    ("optuna", {"max_demos": 1.5}, "max_demos"),
    ("random_search", {"restrict": [9], "num_candidate_programs": 2}, "restrict"),
    ("random_search", {"restrict": []}, "restrict"),
    ("random_search", {"restrict": [-4]}, "restrict"),
    ("random_search", {"labeled_sample": 1}, "labeled_sample"),
    ("gepa", {"track_best_outputs": True}, "track_best_outputs"),
    ("gepa", {"track_stats": "yes"}, "track_stats"),
    ("gepa", {"component_selector": "first"}, "component_selector"),
    ("gepa", {"warn_on_score_mismatch": 0}, "warn_on_score_mismatch"),
    ("gepa", {"gepa_kwargs": {"max_metric_calls": 3}}, "gepa_kwargs"),
    ("gepa", {"gepa_kwargs": {"val_evaluation_policy": "some"}}, "gepa_kwargs"),
    ("gepa", {"gepa_kwargs": {"max_reflection_cost": 3.0}}, "gepa_kwargs"),
    ("gepa", {"log_dir": ""}, "log_dir"),
    ("miprov2", {"log_dir": 5}, "log_dir"),
    ("miprov2", {"provide_traceback": "no"}, "provide_traceback"),
    ("better_together", {"strategy": "p -> w"}, "strategy"),
    ("better_together", {"strategy": ""}, "strategy"),
    ("better_together", {"valset_ratio": 1}, "valset_ratio"),
    ("better_together", {"valset_ratio": -0.1}, "valset_ratio"),
    ("better_together", {"shuffle_trainset_between_steps": 2}, "shuffle_trainset_between_steps"),
]


@pytest.mark.parametrize(("optimizer", "options", "named"), REFUSED)
def test_an_impossible_option_costs_nothing(
    sup: dspex.Supervisor, lm: FakeLM, optimizer: Any, options: dict[str, Any], named: str
) -> None:
    """process: the error names the option, its value and what it may be."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    with pytest.raises(InvalidInput) as refused:
        dspex.optimize(program, ROWS, optimizer=optimizer, metric=exact, **options)
    told = str(refused.value)
    assert refused.value.field == named and named in told and repr(options[named]) in told
    assert not lm.requests


JOBS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"optimizer": "mipro"}, UnknownName),
    ({"optimizer": "bootstrap", "trials": 3}, UnknownName),
    ({"optimizer": "bootstrap", "num_trials": 3}, UnknownName),
    ({"optimizer": "labeled", "trainset": []}, InvalidInput),
    ({"optimizer": "labeled", "trainset": "q"}, InvalidInput),
    ({"optimizer": "labeled", "trainset": [{"answer": "a"}]}, InvalidInput),
    ({"optimizer": "miprov2", "trainset": ROWS[:1]}, InvalidInput),
    ({"optimizer": "labeled", "valset": 5}, InvalidInput),
    ({"optimizer": "labeled", "inputs": "question"}, InvalidInput),
    ({"optimizer": "labeled", "metric": None}, SettingsError),
    ({"optimizer": "labeled", "metric": 5}, SettingsError),
    ({"optimizer": "labeled", "metric": "exactly"}, UnknownName),
    ({"optimizer": "labeled", "metric": f"{OWN}:nobody"}, UnknownName),
    ({"optimizer": "labeled", "metric": lambda example: 1.0}, SettingsError),
    ({"optimizer": "labeled", "timeout": "3s"}, SettingsError),
    ({"optimizer": "labeled", "valset": []}, InvalidInput),
    *(
        ({"optimizer": name}, SettingsError)
        for name in ("BootstrapFinetune", "dspy.GRPO", "ArborGRPO", "Ensemble", "KNNFewShot", "AvatarOptimizer")
    ),
    ({"optimizer": object()}, UnknownName),
    ({"optimizer": "gepa", "use_wandb": True}, SettingsError),
    ({"optimizer": "gepa", "wandb_api_key": "k"}, SettingsError),
    ({"optimizer": "gepa", "teacher": "question -> answer"}, SettingsError),
    ({"optimizer": "copro", "eval_kwargs": {}}, SettingsError),
    ({"optimizer": "copro", "teacher": "question -> answer"}, UnknownName),
    ({"optimizer": "gepa", "instruction_proposer": optimizer_code.awaited}, SettingsError),
    ({"optimizer": "gepa", "instruction_proposer": optimizer_code.of_one}, SettingsError),
    ({"optimizer": "gepa", "instruction_proposer": 5}, InvalidInput),
    ({"optimizer": "gepa", "instruction_proposer": f"{CODE}:nobody"}, UnknownName),
    ({"optimizer": "gepa", "component_selector": optimizer_code.of_one}, SettingsError),
    ({"optimizer": "gepa", "component_selector": f"{CODE}:awaited"}, InvalidInput),
    ({"optimizer": "gepa", "gepa_kwargs": 5}, InvalidInput),
    ({"optimizer": "gepa", "reflection_lm": 5}, Exception),
    ({"optimizer": "gepa", "reflection_lm": "openai/x", "prompt_lm": "openai/y"}, SettingsError),
    ({"optimizer": "bootstrap", "teacher": 5}, InvalidInput),
    ({"optimizer": "bootstrap", "teacher": "nowhere.json"}, Exception),
    ({"optimizer": "bootstrap", "teacher": "question -> reply"}, InvalidInput),
    ({"optimizer": "optuna", "teacher": "question -> answer, why"}, InvalidInput),
    ({"optimizer": "bootstrap", "teacher": f"{OWN}:Returning"}, InvalidInput),
    ({"optimizer": "bootstrap", "teacher_settings": "gpt"}, InvalidInput),
    ({"optimizer": "bootstrap", "teacher_settings": {"temperature": 1.0}}, UnknownName),
    ({"optimizer": "bootstrap", "teacher_settings": {"lm": 5}}, Exception),
    ({"optimizer": "bootstrap", "teacher_settings": {"adapter": "yaml"}}, UnknownName),
    ({"optimizer": "better_together", "optimizers": []}, InvalidInput),
    ({"optimizer": "better_together", "optimizers": {"p": {"num_candidates": 2}}}, InvalidInput),
    ({"optimizer": "better_together", "optimizers": {"w": "BootstrapFinetune"}}, SettingsError),
    ({"optimizer": "better_together", "optimizers": {"p": "better_together"}}, InvalidInput),
    ({"optimizer": "better_together", "optimizers": {"p": {"optimizer": "bootstrap", "breadth": 2}}}, UnknownName),
    ({"optimizer": "better_together", "optimizers": {"p": {"optimizer": "copro", "breadth": 1}}}, InvalidInput),
    ({"optimizer": "better_together", "teacher": "question -> answer"}, SettingsError),
    ({"optimizer": "better_together", "optimizer_compile_args": {"p": {}}}, SettingsError),
]


@pytest.mark.parametrize(("given", "kind"), JOBS)
def test_an_impossible_job_costs_nothing(
    sup: dspex.Supervisor, lm: FakeLM, given: dict[str, Any], kind: type[Exception]
) -> None:
    """process"""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    with pytest.raises(kind):
        dspex.optimize(program, **{"trainset": ROWS, "metric": exact, **given})
    assert not lm.requests


def test_a_program_without_predictors_costs_nothing(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: there is nothing to optimize in it."""
    program = dspex.module(f"{OWN}:Returning", lm=lm, supervisor=sup)
    with pytest.raises(InvalidInput, match="no predictors"):
        dspex.optimize(program, [{"kind": "text"}], optimizer="labeled", metric=lambda example, pred: 1.0)
    assert not lm.requests


LEAST: list[tuple[str, dict[str, Any]]] = [
    ("miprov2", {"num_trials": 1, "num_candidates": 1}),
    ("miprov2", {"num_trials": 1}),
    ("miprov2", {"num_candidates": 1, "max_bootstrapped_demos": 0, "max_labeled_demos": 0}),
    ("miprov2", {"num_trials": 2, "num_candidates": 3, "max_bootstrapped_demos": 0, "seed": 0, "max_errors": None}),
    ("miprov2", {"num_trials": 2, "num_candidates": 4, "minibatch": True, "minibatch_size": 1,
                 "minibatch_full_eval_steps": 1, "view_data_batch_size": 1, "metric_threshold": None}),
    ("gepa", {"max_metric_calls": 1}),
    ("gepa", {"max_full_evals": 1, "reflection_minibatch_size": 1, "max_merge_invocations": 0, "auto": None}),
    ("bootstrap", {"max_bootstrapped_demos": 0, "max_labeled_demos": 0, "max_rounds": 1, "metric_threshold": 0.5}),
    ("random_search", {"num_candidate_programs": 0, "max_bootstrapped_demos": 1, "stop_at_score": 0}),
    ("labeled", {"k": 1, "sample": False}),
    ("labeled", {"k": 1000}),
    ("copro", {"breadth": 2, "depth": 1, "init_temperature": 0}),
    ("simba", {"bsize": 1, "num_candidates": 1, "max_steps": 1, "max_demos": 0, "demo_input_field_maxlen": None}),
    ("simba", {"bsize": 100, "num_candidates": 2, "max_steps": 1, "demo_input_field_maxlen": 1}),
    ("infer_rules", {"num_candidates": 1, "num_rules": 1, "max_bootstrapped_demos": 0}),
    ("optuna", {"num_candidate_programs": 1, "max_bootstrapped_demos": 1, "max_labeled_demos": 0, "seed": 0}),
    ("random_search", {"restrict": [-3], "labeled_sample": False}),
    ("better_together", {"optimizers": {"p": "labeled"}, "valset_ratio": 0, "seed": 1}),
    ("better_together", {"optimizers": {"p": {"optimizer": "bootstrap"}, "q": "labeled"}, "strategy": "q -> p -> q"}),
    ("gepa", {"max_metric_calls": 1, "gepa_kwargs": {"use_cloudpickle": True, "cache_evaluation": True}}),
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "options"), LEAST)
def test_the_least_that_is_allowed_runs(
    sup: dspex.Supervisor, lm: FakeLM, optimizer: Any, options: dict[str, Any]
) -> None:
    """process: so that what is refused is not more than what cannot be."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    best = dspex.optimize(program, ROWS, optimizer=optimizer, metric=exact, **options)
    assert best.score is not None and lm.requests


def test_infer_rules_learns_from_one_half_and_is_scored_on_the_other(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: as DSPy divides them, where no valset is given."""
    seen: set[str] = set()

    def noting(example: Any, pred: Any, trace: Any = None) -> bool:
        if trace is None:
            seen.add(example.question)
        return exact(example, pred)

    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    rows = [{"question": f"q{number}", "answer": "a"} for number in range(7)]
    dspex.optimize(program, rows, optimizer="infer_rules", metric=noting, num_candidates=1, num_rules=1)
    assert seen == {"q3", "q4", "q5", "q6"}


@pytest.mark.parametrize("there, missing", [("mipro", "dspy"), ("dspy", "mipro")])
def test_a_supervisor_without_one_of_the_pools_is_refused(lm: FakeLM, there: str, missing: str) -> None:
    """The optimizer's, and the one that renders the prompt of what it finds: nothing is paid for first."""
    with (
        dspex.Supervisor(pools=[dspex.PoolConfig(there, size=1)]) as alone,
        pytest.raises(UnknownName, match=f"no pool '{missing}'"),
    ):
        dspex.optimize("question -> answer", ROWS, optimizer="labeled", metric=exact, lm=lm, supervisor=alone)
    assert not lm.requests
