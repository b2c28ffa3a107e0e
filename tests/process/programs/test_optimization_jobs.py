"""Process: optimizations as jobs: their states, events, ends, and what each keeps of what was found."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.programs.saving.optimized import Optimized
from dspex.testing import FakeLM
from tests.support.programs.job_tasks import OPTIMIZERS, ROWS, endpoint, is_right
from tests.support.waiting import eventually

SOON = 1.0  # seconds in which a cancelled job's worker is free


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]) as running:
        yield running


def begun(sup: dspex.Supervisor, lm: FakeLM, optimizer: str = "miprov2", **how: Any) -> dspex.OptimizationJob:
    given: Any = {"optimizer": optimizer, "metric": is_right, "progress": False, **OPTIMIZERS[optimizer], **how}
    return dspex.optimize("question -> answer", ROWS, lm=lm, supervisor=sup, wait=False, **given)


def is_free(sup: dspex.Supervisor) -> bool:
    row = sup.pool("mipro").stats()["workers"][0]
    return row["phase"] == "ready" and not row["running"] and not row["abandoned"]


STATES = ["queued", "running", "done"]
PASSING = ("progress", "heartbeat")  # of several in a row a reader gets the newest
KINDS = {
    "bootstrap": {"baseline", "result"},
    "labeled": {"baseline", "result"},
    "random_search": {"baseline", "full", "result"},
    "miprov2": {"baseline", "full", "minibatch", "result"},
    "gepa": {"baseline", "full", "minibatch", "result"},
    "copro": {"baseline", "full", "result"},
    "simba": {"baseline", "full", "minibatch", "result"},
    "infer_rules": {"baseline", "full", "result"},
    "optuna": {"baseline", "full", "result"},
}


@pytest.mark.parametrize("optimizer", KINDS)  # steps of better_together score halves of the trainset in full
def test_a_job_tells_every_candidate_truthfully(sup: dspex.Supervisor, optimizer: str) -> None:
    """process: kinds, sets, per-example scores, states; the best so far is never more than a full evaluation gave."""
    with endpoint() as lm:
        job = begun(sup, lm, optimizer, keep_baseline=False)
        events = list(job.events())
        best = job.result(SOON)
    told = [event.facts["candidate"] for event in events if event.kind == "candidate"]
    assert {one["kind"] for one in told} == KINDS[optimizer]
    assert [one["number"] for one in told] == list(range(len(told))) and len(best.trials) == len(told)
    for one in told:
        assert len(one["scores"]) == len(one["rows"]) and one["state"]["demos"] is not None
        assert one["score"] == pytest.approx(100 * sum(one["scores"]) / len(one["scores"]), abs=0.01)
        assert (one["kind"] == "minibatch") == (len(one["rows"]) < len(told[0]["rows"]))
    assert told[0]["score"] == best.baseline_score and told[-1]["score"] == best.score
    assert told[-1]["state"] == best.program.state
    full = [one["score"] for one in told if one["kind"] != "minibatch"]
    assert job.progress.best == max(full) and job.progress.baseline == best.baseline_score
    reports = [event.facts for event in events if event.kind in ("stage", "progress", "candidate")]
    assert all(facts["trials"] is None or facts["trial"] <= facts["trials"] for facts in reports)
    assert [event.number for event in events] == sorted({event.number for event in events})
    assert [event.kind for event in events if event.kind in STATES] == STATES and job.state == "done"
    assert [event for event in job.events() if event.kind not in PASSING] == [
        event for event in events if event.kind not in PASSING
    ]
    assert job.progress.requests == len(lm.requests) and job.progress.cost is None
    assert sum(trial["requests"] for trial in best.trials) == len(lm.requests)


@pytest.mark.parametrize(("optimizer", "planned"), [("random_search", 6), ("copro", 6), ("infer_rules", 3)])
def test_how_many_candidates_are_planned_is_how_many_come(sup: dspex.Supervisor, optimizer: str, planned: int) -> None:
    """process: from the first candidate on."""
    with endpoint() as lm:
        job = begun(sup, lm, optimizer)
        counts = [event.facts for event in job.events() if event.kind == "candidate"]
    told = [facts["trials"] for facts in counts if facts["candidate"]["kind"] not in ("baseline", "result")]
    assert told == [planned] * planned


def test_a_running_job_is_cancelled_at_once(sup: dspex.Supervisor) -> None:
    """process: its waits for language models end, its worker is free, nothing more is asked; a queued one too."""
    with endpoint(60.0) as lm:  # nothing waits so long
        job, second = begun(sup, lm), begun(sup, lm)
        lm.wait_for(lambda: len(lm.requests) >= 4)
        assert (job.state, second.state) == ("running", "queued")
        assert second.cancel() and second.wait(SOON) and second.state == "stopped" and second.partial is None
        asked = len(lm.requests)
        assert job.cancel() and job.wait(SOON) and job.state == "stopped"
        eventually(lambda: is_free(sup), within=SOON)
        lm.wait_for(lambda: lm.hung_up >= 4)
        assert len(lm.requests) == asked
        assert not job.cancel()
    with pytest.raises(dspex.OptimizationStopped) as caught:
        job.result()
    assert caught.value.partial is None and [event.kind for event in job.events()][-2:] == ["cancelling", "stopped"]


def test_a_cancelled_job_keeps_the_best_so_far(sup: dspex.Supervisor) -> None:
    """process: with its trials; it can be called and saved."""
    with endpoint() as lm:
        job = begun(sup, lm, "gepa")
        seen: Any = None
        for event in job.events():
            if event.kind == "candidate" and event.facts["candidate"]["number"] == 4:
                seen = event.facts["candidate"]
                job.cancel()
        partial = job.partial
        assert partial is not None and job.state == "stopped"
        assert (partial.score, partial.program.state) == (seen["score"], seen["state"]) == (87.5, seen["state"])
        assert partial.baseline_score == 75.0 and len(partial.trials) >= 5
        assert partial(question="What is 3 doubled?").answer


def test_a_metric_that_hangs_does_not_hold_up_the_cancel(sup: dspex.Supervisor) -> None:
    """process: the metric's thread goes on in the host; the job and its worker do not wait for it."""
    entered, leave = threading.Event(), threading.Event()

    def hanging(example: Any, prediction: Any, trace: Any = None) -> bool:
        entered.set()
        leave.wait(90)
        return True

    with endpoint() as lm:
        job = begun(sup, lm, metric=hanging)
        assert entered.wait(10)
        job.cancel()
        try:
            assert job.wait(SOON)
            eventually(lambda: is_free(sup), within=3 * SOON)
        finally:
            leave.set()


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"budget": {"requests": 30}}, dspex.BudgetExceeded),
        ({"budget": {"tokens": 6000}}, dspex.BudgetExceeded),
        ({"budget": {"usd": 0.03}}, dspex.BudgetExceeded),
        ({"timeout": 1.5}, dspex.CallTimeout),
    ],
)
def test_limits_end_a_job_with_the_best_so_far(
    sup: dspex.Supervisor, how: dict[str, Any], error: type[dspex.DspexError]
) -> None:
    """process: requests, tokens, dollars and seconds, for the job and for who waits."""
    with endpoint(0.1 if "timeout" in how else 0.0, price=(3.0, 15.0)) as lm:
        given: Any = {"optimizer": "random_search", "metric": is_right, "progress": False, "supervisor": sup, "lm": lm}
        with pytest.raises(error) as caught:
            dspex.optimize("question -> answer", ROWS, **given, **OPTIMIZERS["random_search"], **how)
        asked = len(lm.requests)
    partial = caught.value.partial
    assert isinstance(partial, Optimized) and partial.score == 75.0 and partial.trials[0]["kind"] == "baseline"
    if "requests" in how.get("budget", {}):
        assert asked <= 30 + 3  # what was under way
    eventually(lambda: is_free(sup))


@pytest.mark.parametrize(
    "budget", [{}, {"dollars": 1}, {"requests": -1}, {"requests": 1.5}, {"usd": "2"}, {"tokens": True}, 5, [1]]
)
def test_a_budget_that_cannot_be_is_refused(sup: dspex.Supervisor, budget: Any) -> None:
    """process: before anything is paid."""
    with endpoint() as lm:
        with pytest.raises(dspex.SettingsError, match="budget"):
            begun(sup, lm, budget=budget)
        assert not lm.requests


def test_a_cancelled_task_ends_its_job(sup: dspex.Supervisor) -> None:
    """process: `aoptimize`; awaiting a job is something else."""

    async def main() -> None:
        with endpoint(0.05) as lm:
            given: Any = {"metric": is_right, "lm": lm, "supervisor": sup, "progress": False, **OPTIMIZERS["miprov2"]}
            task = asyncio.create_task(dspex.aoptimize("question -> answer", ROWS, **given))
            await lm.await_for(lambda: len(lm.requests) >= 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            asked = len(lm.requests)
            await asyncio.to_thread(eventually, lambda: is_free(sup), within=SOON)
            assert len(lm.requests) == asked
        with endpoint() as lm:
            job = begun(sup, lm)
            waiter = asyncio.ensure_future(_result_of(job))
            await lm.await_for(lambda: len(lm.requests) >= 3)
            waiter.cancel()
            kinds = [event.kind async for event in job.aevents()]
            assert kinds[-1] == "done" and (await job).score == job.result().score

    asyncio.run(main())


async def _result_of(job: dspex.OptimizationJob) -> Any:
    return await job


def test_an_asynchronous_metric_runs_on_the_loop_that_awaits(sup: dspex.Supervisor) -> None:
    """process: of `aoptimize`; for others on a loop that is kept for them."""
    loops: set[Any] = set()

    async def measured(example: Any, prediction: Any) -> bool:
        loops.add(asyncio.get_running_loop())
        return is_right(example, prediction)

    async def main() -> Any:
        with endpoint() as lm:
            given: Any = {"optimizer": "labeled", "metric": measured, "lm": lm, "supervisor": sup, "progress": False}
            await dspex.aoptimize("question -> answer", ROWS, **given)
        return asyncio.get_running_loop()

    assert asyncio.run(main()) in loops and len(loops) == 1


@pytest.mark.parametrize("raising", [KeyboardInterrupt, ValueError])
def test_an_interrupted_wait_ends_the_job_and_keeps_the_best(
    sup: dspex.Supervisor, raising: type[BaseException]
) -> None:
    """process: of `on_progress`, or Ctrl-C."""

    def report(facts: dict[str, Any]) -> None:
        if facts["stage"] == "search" and facts["trial"] >= 2:
            raise raising("enough")

    with endpoint(0.01) as lm:
        given: Any = {"metric": is_right, "lm": lm, "supervisor": sup, "on_progress": report, **OPTIMIZERS["miprov2"]}
        with pytest.raises(raising, match="enough") as caught:
            dspex.optimize("question -> answer", ROWS, **given)
        assert caught.value.partial.score == 83.33  # type: ignore[union-attr]
        eventually(lambda: is_free(sup), within=SOON)


def test_a_failing_job_says_why_with_what_there_was(sup: dspex.Supervisor) -> None:
    """process: refused by the worker before anything is paid, and failed by its metric."""

    def failing(example: Any, prediction: Any, trace: Any = None) -> bool:
        raise ValueError("no such field")

    with endpoint() as lm:
        job = begun(sup, lm, "bootstrap", metric=failing)
        with pytest.raises(dspex.OptimizationFailed, match="no such field"):
            job.result(30)
        asked = len(lm.requests)
        refused = begun(sup, lm, "gepa", max_full_evals=3)  # beside max_metric_calls
        with pytest.raises(dspex.InvalidInput, match="exclude each other"):
            refused.result(30)
        assert len(lm.requests) == asked and refused.state == job.state == "failed" and refused.partial is None


def test_a_heartbeat_tells_of_requests_that_wait(sup: dspex.Supervisor) -> None:
    """process: while nothing else happens."""
    with endpoint(7.0) as lm:
        job = begun(sup, lm, "labeled")
        beat = next(event for event in job.events() if event.kind == "heartbeat")
        assert beat.facts["waiting"] == 4 and beat.facts["longest_s"] >= 4.0
        assert "4 requests wait" in job.progress.line()
        job.cancel()


def test_failed_reflections_are_warnings(sup: dspex.Supervisor) -> None:
    """process: GEPA prints them and goes on; DSPy's own messages are events too."""
    with FakeLM(by_field={"answer": "no idea"}, answers="nothing of use") as lm:
        job = begun(sup, lm, "gepa", max_metric_calls=20)
        texts: dict[str, list[str]] = {"warning": [], "message": []}
        for event in job.events():
            texts.get(event.kind, []).append(str(event.facts.get("message", "")))
    assert any("reflection failed" in text for text in texts["warning"])
    assert any("Selected program" in text for text in texts["message"])


SHOWN: dict[str, Callable[[str], bool]] = {
    "default": lambda text: "dspex labeled: baseline" in text and "dspex labeled: done" in text,
    "silent": lambda text: "dspex" not in text,
    "reported": lambda text: "dspex" not in text,
}


@pytest.mark.parametrize("case", SHOWN)
def test_progress_is_shown_in_lines_unless_it_shall_not_be(
    sup: dspex.Supervisor, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    """process: on stderr; not where `on_progress` reports."""
    hows: dict[str, dict[str, Any]] = {"default": {}, "silent": {"progress": False}, "reported": {"on_progress": id}}
    with endpoint() as lm:
        given: Any = {"optimizer": "labeled", "metric": is_right, "supervisor": sup, "lm": lm, **hows[case]}
        dspex.optimize("question -> answer", ROWS, **given)
    assert SHOWN[case](capfd.readouterr().err)


@pytest.mark.parametrize(("price", "count"), [(None, 1), ((0.1, 0.1), 0)])
def test_a_budget_of_dollars_says_once_that_requests_have_no_price(
    sup: dspex.Supervisor, price: Any, count: int
) -> None:
    """process: a limit that cannot hold is not silently none."""
    with endpoint() as lm:
        named = dspex.LM("openai/priced", api_base=lm.api_base, api_key=lm.api_key, price=price)
        given: Any = {"optimizer": "labeled", "metric": is_right, "lm": named, "supervisor": sup, "progress": False}
        job = dspex.optimize("question -> answer", ROWS, budget={"usd": 1.0}, wait=False, **given)
        job.result(60)
    said = [event for event in job.events() if event.kind == "warning" and "1 USD" in str(event.facts["message"])]
    assert len(said) == count
