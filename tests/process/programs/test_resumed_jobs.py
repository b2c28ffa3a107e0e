"""Process: jobs that go on from their journals: what they need again, what they refuse, what they do not ask again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM
from tests.support.programs.job_tasks import OPTIMIZERS, ROWS, endpoint, is_right, shown

MIPRO: dict[str, Any] = OPTIMIZERS["miprov2"]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]) as running:
        yield running


def stopped(sup: dspex.Supervisor, lm: FakeLM, path: Path, after: int = 30, **how: Any) -> dspex.OptimizationJob:
    """A job that was cancelled after so many requests."""
    given: Any = {"metric": is_right, "progress": False, "journal": path, **MIPRO, **how}
    program = given.pop("program", "question -> answer")
    job = dspex.optimize(program, given.pop("rows", ROWS), lm=lm, supervisor=sup, wait=False, **given)
    lm.wait_for(lambda: len(lm.requests) >= after, 30)
    job.cancel()
    assert job.wait(10) and job.state == "stopped"
    return job


def test_a_stopped_job_goes_on_where_it_was(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: it ends as if nothing had happened, and what it spent before counts; once it has ended it is free."""
    path = tmp_path / "job.jsonl"
    with endpoint() as lm:
        whole = dspex.optimize(
            "question -> answer", ROWS, metric=is_right, lm=lm, supervisor=sup, progress=False, **MIPRO
        )
        once = len(lm.requests)
    with endpoint(0.005) as lm:
        job = stopped(sup, lm, path)
        known = len(job.partial.trials) if job.partial else 0
        again = dspex.resume(path, metric=is_right, lm=lm, supervisor=sup, progress=False, wait=False)
        best = again.result(60)
        assert once <= len(lm.requests) <= once + 4
        assert again.id == job.id and again.journal == path and again.progress.requests <= len(lm.requests)
        told = [event.facts["candidate"]["number"] for event in again.events() if event.kind == "candidate"]
        assert told == list(range(known, len(best.trials)))  # those before were told by the job that found them
        assert [shown(trial) for trial in best.trials] == [shown(trial) for trial in whole.trials]
        assert best.program.state == whole.program.state and sum(trial["requests"] for trial in best.trials) >= once - 8
        asked = len(lm.requests)
        assert dspex.resume(path, metric=is_right, lm=lm, supervisor=sup, progress=False).score == best.score
        assert len(lm.requests) == asked


def test_a_budget_that_was_spent_stays_spent_until_there_is_more(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: a larger one goes on."""
    path = tmp_path / "job.jsonl"
    given: Any = {"metric": is_right, "supervisor": sup, "progress": False}
    with endpoint() as lm:
        with pytest.raises(dspex.BudgetExceeded):
            dspex.optimize("question -> answer", ROWS, lm=lm, journal=path, budget={"requests": 25}, **given, **MIPRO)
        asked = len(lm.requests)
        with pytest.raises(dspex.BudgetExceeded) as caught:
            dspex.resume(path, lm=lm, **given)
        assert len(lm.requests) == asked and caught.value.partial.score == 83.33
        assert dspex.resume(path, lm=lm, budget={"requests": 100}, **given).score is not None


def add(a: int, b: int) -> int:
    """Add two numbers."""
    CALLED.append((a, b))
    return a + b


CALLED: list[tuple[int, int]] = []


def test_tools_and_metrics_of_the_host_are_not_run_again(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: their results are kept too; the tools are given again, by name."""
    path, scored = tmp_path / "job.jsonl", list[str]()

    def counting(example: Any, prediction: Any, trace: Any = None) -> bool:
        scored.append(example["question"])
        return is_right(example, prediction)

    CALLED.clear()
    fields = {
        "next_thought": "add", "next_tool_args": {"a": 1, "b": 1}, "reasoning": "r", "answer": "2",
        "next_tool_name": lambda request: "finish" if "observation_0" in request.last else "add",
    }  # fmt: skip
    with FakeLM(by_field=fields) as lm:
        agent = dspex.react("question -> answer", tools=[add], supervisor=sup, lm=lm)
        given: Any = {"optimizer": "bootstrap", "metric": counting, "journal": path, "progress": False}
        best = dspex.optimize(agent, ROWS[:3], **given)
        counts = len(lm.requests), len(CALLED), len(scored)
        with pytest.raises(dspex.JournalError, match=r"tools=\[add\]") as caught:
            dspex.resume(path, metric=counting, lm=lm, supervisor=sup, progress=False)
        assert caught.value.reason == "incomplete" and caught.value.missing == ("tools",)
        again = dspex.resume(path, metric=counting, tools=[add], lm=lm, supervisor=sup, progress=False)
    assert again.program.state == best.program.state and counts == (len(lm.requests), len(CALLED), len(scored))


def test_another_metric_is_asked_anew(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: its results are its own, and a warning says so; the answers of the model are kept."""
    path, scored = tmp_path / "job.jsonl", list[str]()

    def other(example: Any, prediction: Any, trace: Any = None) -> bool:
        scored.append(example["question"])
        return True

    with endpoint() as lm:
        given: Any = {"lm": lm, "supervisor": sup, "progress": False}
        dspex.optimize("question -> answer", ROWS, optimizer="labeled", metric=is_right, journal=path, **given)
        asked = len(lm.requests)
        job = dspex.resume(path, metric=other, wait=False, **given)
        assert job.result(30).score == 100.0 and len(scored) == 16 and len(lm.requests) == asked
    warnings = [event.facts["message"] for event in job.events() if event.kind == "warning"]
    assert any("other code" in text for text in warnings) and any("comes to others" in text for text in warnings)


REFUSED: dict[str, tuple[dict[str, Any], str, tuple[str, ...], str]] = {
    "no metric": ({"metric": None}, "incomplete", ("metric",), r"metric=.*is_right"),
    "other examples": ({"trainset": ROWS[:4]}, "mismatch", ("trainset",), "trainset"),
    "another program": ({"program": "question -> answer, why"}, "mismatch", ("program",), "program"),
    "another model": ({"lm": "another"}, "mismatch", ("lm",), "lm"),
    "a model with options": ({"lm": "hot"}, "mismatch", ("lm",), "temperature"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_missing_or_another_jobs_is_refused_by_name(sup: dspex.Supervisor, tmp_path: Path, case: str) -> None:
    """process: before anything is asked; the journal stays as it is, and can be resumed."""
    changes, reason, missing, text = REFUSED[case]
    path = tmp_path / "job.jsonl"
    with endpoint() as lm, endpoint() as other:
        stopped(sup, lm, path, after=10)
        content, asked = path.read_bytes(), len(lm.requests)
        lms: dict[Any, Any] = {"another": other, "hot": lm.replace(temperature=0.3), None: lm}
        given: Any = {"metric": is_right, **changes, "lm": lms[changes.get("lm")]}
        with pytest.raises(dspex.JournalError, match=text) as caught:
            dspex.resume(path, supervisor=sup, progress=False, **given)
        assert (caught.value.reason, caught.value.missing) == (reason, missing)
        assert path.read_bytes() == content and len(lm.requests) == asked and not other.requests
        dspex.resume(path, metric=is_right, lm=lm, supervisor=sup, progress=False)


def test_a_journal_holds_no_key_and_no_address(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: of the model, of its headers."""
    path = tmp_path / "job.jsonl"
    with endpoint(api_key="sk-very-secret", headers={"x-team-key": "team-secret"}) as lm:
        dspex.optimize(
            "question -> answer", ROWS, optimizer="labeled", metric=is_right, lm=lm, supervisor=sup, journal=path,
            progress=False,
        )  # fmt: skip
        text = path.read_text()
        assert not any(secret in text for secret in ("sk-very-secret", "team-secret", lm.api_base))
    assert {json.loads(line)["kind"] for line in text.splitlines()} == {"journal", "answer", "candidate", "end"}


def test_journals_go_into_the_settings_folder(tmp_path: Path) -> None:
    """process: each with its job's id; False is none."""
    settings = tmp_path / "dspex.toml"
    settings.write_text(f'[pools.dspy]\nsize = 1\n[pools.mipro]\nsize = 1\n[jobs]\nfolder = "{tmp_path}/jobs"\n')
    with dspex.Supervisor(dspex.config.load(settings)) as sup, endpoint() as lm:
        given: Any = {"optimizer": "labeled", "metric": is_right, "supervisor": sup, "lm": lm, "progress": False}
        job = dspex.optimize("question -> answer", ROWS, wait=False, **given)
        assert job.journal == tmp_path / "jobs" / f"{job.id}.jsonl" and job.result(30)
        none = dspex.optimize("question -> answer", ROWS, wait=False, journal=False, **given)
        assert none.journal is None and none.result(30)
    assert [file.name for file in (tmp_path / "jobs").iterdir()] == [f"{job.id}.jsonl"]


WRONG_JOBS: dict[str, str] = {"no table": "jobs = 3", "no folder": "[jobs]\n", "another key": '[jobs]\npath = "x"\n'}


@pytest.mark.parametrize("case", WRONG_JOBS)
def test_a_jobs_table_that_cannot_be_is_refused(tmp_path: Path, case: str) -> None:
    """process: before anything is paid."""
    settings = tmp_path / "dspex.toml"
    settings.write_text(f"{WRONG_JOBS[case]}\n[pools.dspy]\nsize = 1\n[pools.mipro]\nsize = 1\n")
    with dspex.Supervisor(dspex.config.load(settings)) as sup, endpoint() as lm:
        with pytest.raises(dspex.SettingsError, match="jobs"):
            dspex.optimize("question -> answer", ROWS, metric=is_right, supervisor=sup, lm=lm, progress=False)
        assert not lm.requests


def test_a_journal_that_cannot_be_begun_costs_nothing(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: there is a file already, no folder can be made, it is no path."""
    there = tmp_path / "there.jsonl"
    there.write_text("mine")
    cases: list[tuple[Any, type[Exception]]] = [
        (there, dspex.JournalError), (there / "below.jsonl", dspex.JournalError), (True, dspex.SettingsError),
        ("", dspex.SettingsError), (5, dspex.SettingsError),
    ]  # fmt: skip
    with endpoint() as lm:
        for journal, error in cases:
            with pytest.raises(error, match=r"journal|There is a file"):
                dspex.optimize("question -> answer", ROWS, metric=is_right, lm=lm, supervisor=sup, journal=journal)
        assert not lm.requests and there.read_text() == "mine"


PROGRAMS: dict[str, Callable[[], Any]] = {
    "chain of thought": lambda: dspex.chain_of_thought("question -> answer"),
    "with demos": lambda: dspex.predictor("predict", "question -> answer", demos=[{"question": "q?", "answer": "0"}]),
    "instructions": lambda: dspex.signature("question -> answer", "Double it."),
    "config": lambda: dspex.predictor("predict", "question -> answer").using(config={"temperature": 0.5}),
    "typed": lambda: "question: str -> answer: str, sure: bool",
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_programs_come_back_from_the_journal(sup: dspex.Supervisor, tmp_path: Path, kind: str) -> None:
    """process: nothing but the function and the model is given again."""
    path = tmp_path / "job.jsonl"
    with endpoint() as lm:
        given: Any = {"lm": lm, "supervisor": sup, "progress": False}
        program = PROGRAMS[kind]()
        best = dspex.optimize(program, ROWS, optimizer="bootstrap", metric=is_right, journal=path, **given)
        asked = len(lm.requests)
        again = dspex.resume(path, metric=is_right, **given)
        assert len(lm.requests) == asked and again.program.state == best.program.state
        named = tmp_path / "named.jsonl"
        dspex.optimize(program, ROWS, optimizer="bootstrap", metric="exact_match", journal=named, **given)
        assert dspex.resume(named, **given).score is not None
