"""Process: what DSPy's optimizers take is taken or refused by name; teachers, models and code reach the optimizer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.programs.optimization.optimizer_options import LM_OPTIONS, REFUSED_OPTIMIZERS, REFUSED_OPTIONS
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.programs import optimizer_code

CODE = optimizer_code.__name__
ROWS = [{"question": f"q{number}", "answer": "a" if number % 2 else "b"} for number in range(6)]
ASKED = (
    *("answer", "proposed_instruction", "proposed_prefix_for_output_field", "natural_language_rules", "reasoning"),
    *("observations", "summary", "program_description", "module_description", "discussion"),
)
GIVEN_TO_JOBS = {"self", "metric", "student", "trainset", "valset"}  # `optimize` has them by its own parameters


def exact(example: Any, pred: Any, trace: Any = None) -> bool:
    return bool(example.answer == pred.answer)


def answering() -> FakeLM:
    return FakeLM({"": {**dict.fromkeys(ASKED, "a"), "module_advice": "{}"}})


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
    with answering() as fake:
        yield fake


@pytest.fixture
def other() -> Iterator[FakeLM]:
    with answering() as fake:
        yield fake


def test_every_parameter_of_dspys_optimizers_is_taken_or_refused_by_name() -> None:
    """process: of every class that the installed DSPy has, of its constructor and of its `compile`."""
    code = """
import importlib, inspect, json, pkgutil
import dspy.teleprompt as t
from dspex_worker.programs.optimizers import known_optimizers as o
classes = {}
for found in pkgutil.walk_packages(t.__path__, "dspy.teleprompt."):
    for name, kind in vars(importlib.import_module(found.name)).items():
        if isinstance(kind, type) and issubclass(kind, t.Teleprompter if hasattr(t, "Teleprompter") else object):
            every = [*inspect.signature(kind.__init__).parameters.values(),
                     *inspect.signature(kind.compile).parameters.values()]
            named = [one.name for one in every if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
            classes[name] = sorted(set(named))
taken = {name: [own, o.OPTIMIZERS[own].options] for name, own in o._CLASSES.items()}
print(json.dumps([classes, taken]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    classes, taken = json.loads(done.stdout.splitlines()[-1])
    assert {"MIPROv2", "GEPA", "BetterTogether", "BootstrapFewShotWithOptuna", "GRPO"} <= classes.keys()
    for name, parameters in classes.items():
        if name not in taken:
            assert name in REFUSED_OPTIMIZERS, name
            continue
        own, options = taken[name]
        refused = {each for each in REFUSED_OPTIONS if "." not in each} | {
            each.rpartition(".")[2] for each in REFUSED_OPTIONS if each.startswith(f"{own.replace('_', '')}.")
        }
        left = set(parameters) - GIVEN_TO_JOBS - set(options) - refused - LM_OPTIONS.keys()
        assert not left, (name, left)


TEACHING: list[tuple[str, dict[str, Any]]] = [
    ("bootstrap", {}),
    ("random_search", {"restrict": [-1, 0], "num_candidate_programs": 1}),
    ("optuna", {"num_candidate_programs": 1}),
    ("miprov2", {"num_trials": 1, "num_candidates": 3}),
    ("infer_rules", {"num_candidates": 1, "num_rules": 1}),
]


@pytest.mark.parametrize(("optimizer", "options"), TEACHING)
def test_a_teacher_makes_the_demonstrations(
    sup: dspex.Supervisor, lm: FakeLM, other: FakeLM, optimizer: Any, options: dict[str, Any]
) -> None:
    """process: with its own language model, which is asked for nothing else; so by `teacher_settings`."""
    student = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    teacher = dspex.predictor("predict", "question -> answer", lm=other, supervisor=sup)
    for given in ({"teacher": teacher}, {"teacher_settings": {"lm": other, "adapter": "chat"}}):
        before, rows = len(other.requests), ROWS[:4]
        dspex.optimize(student, rows, optimizer=optimizer, metric=exact, progress=False, **options, **given)  # type: ignore[arg-type]
        asked = other.requests[before:]
        assert asked and any(any(row["question"] in str(one.body) for row in rows) for one in asked)


def test_a_teacher_is_a_program_a_signature_or_a_saved_program(
    sup: dspex.Supervisor, lm: FakeLM, tmp_path: Path
) -> None:
    """process"""
    student = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    how: Any = {"optimizer": "bootstrap", "metric": exact, "progress": False}
    best = dspex.optimize(student, ROWS, **how)
    best.save(tmp_path / "teacher.json")
    for teacher in (
        best,
        best.program,
        "question -> answer",
        tmp_path / "teacher.json",
        str(tmp_path / "teacher.json"),
    ):
        assert dspex.optimize(student, ROWS, teacher=teacher, **how).score == best.score


CODES: list[dict[str, Any]] = [
    {"instruction_proposer": optimizer_code.keeping},
    {"instruction_proposer": f"{CODE}:keeping"},
    {"instruction_proposer": f"{CODE}:Keeping"},
    {"instruction_proposer": optimizer_code.Keeping()},
    {"instruction_proposer": lambda candidate, **_: {name: f"{text} Double it." for name, text in candidate.items()}},
]


@pytest.mark.parametrize("given", CODES)
def test_gepas_code_is_named_or_sent(sup: dspex.Supervisor, lm: FakeLM, given: dict[str, Any]) -> None:
    """process: what it proposes is scored; nobody is asked to reflect."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    for selector in ("all", optimizer_code.last, f"{CODE}:last"):
        best = dspex.optimize(
            program, ROWS, optimizer="gepa", metric=exact, max_metric_calls=20, progress=False, seed=1,
            component_selector=selector, **given,
        )  # fmt: skip
        assert best.score == 50.0 and any("Double it." in str(one.body) for one in lm.requests)
        assert all("answer" in str(one.body) for one in lm.requests)


def test_gepa_keeps_its_stats_and_its_folder(sup: dspex.Supervisor, lm: FakeLM, tmp_path: Path) -> None:
    """process: `details` holds DSPy's `detailed_results`; the folder is GEPA's own."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    best = dspex.optimize(
        program, ROWS, optimizer="GEPA", metric=exact, max_metric_calls=12, progress=False, reflection_lm=lm,
        instruction_proposer=optimizer_code.keeping, track_stats=True, track_best_outputs=True, log_dir=tmp_path,
    )  # fmt: skip
    assert best.details["val_aggregate_scores"][0] == 0.5 and best.details["log_dir"] == str(tmp_path)
    assert len(best.details["best_outputs_valset"]) == len(ROWS)
    assert list(tmp_path.iterdir())


def test_models_go_by_dspys_names(sup: dspex.Supervisor, lm: FakeLM, other: FakeLM) -> None:
    """process: `prompt_model` and `reflection_lm` propose, `task_model` answers."""
    program = dspex.predictor("predict", "question -> answer", supervisor=sup)
    how: Any = {"metric": exact, "progress": False, "task_model": lm}
    dspex.optimize(program, ROWS, optimizer="COPRO", breadth=2, depth=1, prompt_model=other, **how)
    assert len(other.requests) == 1 and "proposed_instruction" in str(other.requests[0].body)
    dspex.optimize(program, ROWS, optimizer="GEPA", max_metric_calls=20, reflection_lm=other, **how)
    assert len(other.requests) > 1 and not any("proposed_instruction" in str(one.body) for one in lm.requests)


def test_a_journal_asks_for_options_that_no_file_holds(sup: dspex.Supervisor, lm: FakeLM, tmp_path: Path) -> None:
    """process: a teacher is given again, and the same; nothing is asked twice."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    path = tmp_path / "job.jsonl"
    options: Any = {"teacher": program, "max_rounds": 1}
    best = dspex.optimize(
        program, ROWS, optimizer="bootstrap", metric="exact_match", journal=path, progress=False, **options
    )
    asked = len(lm.requests)
    how: Any = {"lm": lm, "supervisor": sup, "progress": False}
    with pytest.raises(dspex.JournalError, match="teacher") as refused:
        dspex.resume(path, **how)
    assert refused.value.missing == ("options",)
    with pytest.raises(dspex.JournalError, match="options"):
        dspex.resume(path, options={**options, "max_rounds": 2}, **how)
    assert dspex.resume(path, options=options, **how).score == best.score
    assert len(lm.requests) == asked
