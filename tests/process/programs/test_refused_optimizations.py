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

ROWS = [{"question": f"q{number}", "answer": "a" if number % 2 else "b"} for number in range(6)]
OWN = "tests.support.programs.own_programs"


def exact(example: Any, pred: Any, trace: Any = None) -> bool:
    return bool(example.answer == pred.answer)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": str(ROOT)}
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
