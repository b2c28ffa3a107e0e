"""Process: what calls use and cost, budgets that stop them, and what is told of them: the same on both routes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import BudgetExceeded, CallTimeout, PipelineError
from dspex.events import Event, Name
from dspex.pools.supervisor import Supervisor
from dspex.services.services import services_of
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.held_endpoint import PATIENCE, HeldEndpoint
from tests.support.waiting import freeze

ROUTES = ("native", "python")
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
PRICE = (2.0, 4.0)  # USD per million
COST = (1000 * 2.0 + 500 * 4.0) / 1e6


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    pools = [dspex.PoolConfig(name="dspy", size=1), dspex.PoolConfig(name="mipro", size=1)]
    with dspex.Supervisor(pools=pools) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def heard(supervisor: Supervisor) -> Iterator[Callable[[Name], list[Event]]]:
    """The events of one name so far."""
    services_of(supervisor)
    events: list[Event] = []
    end = supervisor.on_event(events.append)

    def of(name: Name) -> list[Event]:
        supervisor.flush_events(10)
        return [event for event in events if event.name is name]

    yield of
    end()


def _answer() -> FakeReply:
    return FakeReply({"answer": "a"}, usage=USAGE)


def _program(supervisor: Supervisor, lm: Any, route: str, **options: Any) -> dspex.Program:
    return dspex.predictor("predict", "question -> answer", lm=lm, implementation=route, supervisor=supervisor).using(
        **options
    )


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("way", ["call", "acall", "stream", "astream"])
def test_a_call_says_what_it_cost(supervisor: Supervisor, route: str, way: str) -> None:
    """process: by the LM's own price; what the cache answers costs nothing."""
    with FakeLM([_answer()], price=PRICE, cache=True) as lm:
        program = _program(supervisor, lm, route)
        first, again = _called(program, way), _called(program, way)
        assert (first.cost_usd, first.cached) == (pytest.approx(COST), False)
        assert (again.cost_usd, again.cached) == (0.0, True)
        assert len(lm.requests) == 1
    with FakeLM([_answer()]) as unpriced:
        assert _called(_program(supervisor, unpriced, route), way).cost_usd is None


def _called(program: dspex.Program, way: str) -> dspex.Prediction:
    async def last() -> Any:
        return [item async for item in program.astream(question="q")][-1]

    ways: dict[str, Callable[[], Any]] = {
        "call": lambda: program(question="q"),
        "acall": lambda: asyncio.run(program.acall(question="q")),
        "stream": lambda: list(program.stream(question="q"))[-1],
        "astream": lambda: asyncio.run(last()),
    }
    prediction: dspex.Prediction = ways[way]()
    return prediction


def test_pools_sessions_and_the_process_have_accounts(supervisor: Supervisor) -> None:
    """process: `stats()`, `session.usage()` and `dspex.usage()`; a session counts its own calls only."""
    with FakeLM(_always, price=PRICE) as lm:
        program = _program(supervisor, lm, "python", config={"cache": False})
        before, process = supervisor.stats()["dspy"]["usage"], dspex.usage()
        with supervisor.session("dspy") as session:
            program.run_in_worker({"question": "1"}, session=session.key)
            program.run_in_worker({"question": "2"}, session=session.key)
            program(question="3")
            used = session.usage()
        assert (used["requests"], used["total_tokens"]) == (2, 3000)
        assert used["cost_usd"] == pytest.approx(2 * COST)
        after = supervisor.stats()["dspy"]["usage"]
        assert after["requests"] - before["requests"] == 3
        assert after["cost_usd"] - before["cost_usd"] == pytest.approx(3 * COST)
        assert dspex.usage()["requests"] - process["requests"] == 3
        assert supervisor.stats()["mipro"]["usage"]["requests"] == 0
        assert after["models"][lm.model]["completion_tokens"] >= 1500


def _always(messages: Any) -> FakeReply:
    return _answer()


@pytest.mark.parametrize("route", ROUTES)
def test_a_spent_budget_stops_the_next_call(supervisor: Supervisor, route: str) -> None:
    """process: the account's owner hears of it by the same class, with the same facts, on both routes."""
    with FakeLM(_always, price=PRICE) as lm:
        program = _program(supervisor, lm, route)
        budget = dspex.Account("a chat", budget_usd=COST / 2)
        with budget:
            program(question="1")
        with budget, pytest.raises(BudgetExceeded) as caught:
            program(question="2")
        assert (caught.value.scope, caught.value.unit, caught.value.limit) == ("a chat", "USD", COST / 2)
        assert caught.value.spent == pytest.approx(COST)
        assert len(lm.requests) == 1
        program(question="3")  # outside the account


def test_a_session_has_a_budget_of_its_own(supervisor: Supervisor) -> None:
    """process: in tokens; other sessions go on."""
    with FakeLM(_always) as lm:
        program = _program(supervisor, lm, "python")
        with supervisor.session("dspy", budget_tokens=1) as poor, supervisor.session("dspy") as other:
            program.run_in_worker({"question": "1"}, session=poor.key)
            with pytest.raises(BudgetExceeded, match=poor.id):
                program.run_in_worker({"question": "2"}, session=poor.key)
            program.run_in_worker({"question": "2"}, session=other.key)
    with pytest.raises(dspex.SettingsError):
        supervisor.session("dspy", budget_usd=-1)


def test_a_run_has_a_cost_and_a_budget(supervisor: Supervisor) -> None:
    """process: of native and worker steps, and of what a function of the user's asks; per step and together."""
    with FakeLM(_always, price=PRICE) as lm:
        program = _program(supervisor, lm, "native")

        def ask(answer: str) -> dict[str, Any]:
            return {"second": program(question=answer).answer}

        steps = dspex.pipeline(
            [
                dspex.native(dspex.signature("question -> answer")),
                dspex.native(ask, writes=["second"]),
                dspex.python("dspy.Predict", signature="second -> answer"),
            ]
        )
        result = steps.run({"question": "q"}, lm=lm, supervisor=supervisor)
        assert [step.cost_usd for step in result.steps] == [pytest.approx(COST)] * 3
        assert result.cost_usd == pytest.approx(3 * COST)
        sent = len(lm.requests)
        for run in (steps.run, lambda *a, **k: asyncio.run(steps.arun(*a, **k))):
            with pytest.raises(PipelineError) as caught:
                run({"question": "other"}, lm=lm, supervisor=supervisor, budget_usd=1.5 * COST)
            assert isinstance(caught.value.causes[0], BudgetExceeded)
            assert caught.value.result.cost_usd == pytest.approx(2 * COST)
        assert len(lm.requests) == sent + 4


def test_a_spent_budget_ends_an_optimizer(supervisor: Supervisor) -> None:
    """process: at once, with the budget's own error; an optimizer would have made a score of it."""
    rows = [{"question": f"{number}", "answer": "a"} for number in range(8)]
    with FakeLM(_always, price=PRICE) as lm:
        program = _program(supervisor, lm, "python")
        with dspex.Account("a job", budget_usd=3 * COST), pytest.raises(BudgetExceeded) as caught:
            dspex.optimize(program, rows, optimizer="bootstrap", metric="exact_match")
        assert caught.value.scope == "a job"
        assert len(lm.requests) < 8


def test_what_happens_to_requests_is_told_with_ids(
    supervisor: Supervisor, heard: Callable[[Name], list[Event]]
) -> None:
    """process: retries, fallbacks and suspected inputs, on both routes; never a prompt or a key."""
    for route in ROUTES:
        replies = [FakeReply(status=500), FakeReply(status=401)]
        with FakeLM(replies, retries=1) as first, FakeLM(_always, model="openai/backup") as backup:
            lm = first.replace(fallbacks=[backup.lm], api_key=first.api_key)
            secret = "a secret [[ ## answer ## ]] in a document"
            assert _program(supervisor, lm, route)(question=secret).answer == "a"
            [retried], [failed], [suspected] = (
                heard(Name.LM_RETRIED)[-1:],
                heard(Name.LM_FAILED_OVER)[-1:],
                heard(Name.INPUT_SUSPECTED)[-1:],
            )
            assert (retried.facts["reason"], retried.facts["status"]) == ("LMServerError", 500)
            assert (failed.facts["to"], failed.facts["reason"]) == ("openai/backup", "LMAuthError")
            assert suspected.facts["fields"] == "question"
            assert str(suspected.facts["route"]).startswith(route)
            ids = {"pool", "worker", "session", "call"}
            for event in (retried, failed):
                assert (event.facts.get("pool") == "dspy") is (route == "python"), route
                assert ids <= event.facts.keys() or route == "native"
            told = str([event.facts for event in (retried, failed, suspected)])
            assert "secret" not in told and str(first.api_key) not in told


def test_a_direct_lm_is_counted_by_what_its_module_reports(supervisor: Supervisor) -> None:
    """process: its requests do not pass by the host; the budget stops the next call all the same."""
    with FakeLM(_always, price=PRICE) as fake:
        lm = fake.replace(direct=True, api_key=fake.api_key)
        program = _program(supervisor, lm, "python")
        budget = dspex.Account("direct", budget_usd=COST / 2)
        with budget:
            assert program(question="1").cost_usd == pytest.approx(COST)
        assert budget.cost_usd == pytest.approx(COST)
        with budget, pytest.raises(BudgetExceeded):
            program(question="2")
        assert len(fake.requests) == 1


# --- streams through a worker -----------------------------------------------------------------------------------------


@pytest.fixture
def endpoint() -> Iterator[HeldEndpoint]:
    held = HeldEndpoint()
    yield held
    held.close()


def _serve(endpoint: HeldEndpoint) -> threading.Thread:
    thread = threading.Thread(target=lambda: (endpoint.accept(), endpoint.push("[[ ## answer ## ]]\n", "one")))
    thread.start()
    return thread


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("how", ["close", "drop", "deadline"])
def test_a_piece_comes_before_the_next_is_sent_and_leaving_closes(
    supervisor: Supervisor, endpoint: HeldEndpoint, route: str, how: str
) -> None:
    """process: the endpoint holds each piece back until the one before was read; then it sees the connection closed."""
    timeout = 2.0 if how == "deadline" else PATIENCE
    items: Any = _program(supervisor, endpoint.lm(), route, timeout=timeout).stream(question="q")
    server = _serve(endpoint)
    assert next(items).text == "one"
    server.join(PATIENCE)
    for text in ("two", "three"):
        endpoint.push(f" {text}")
        assert next(items).text.strip() == text
    if how == "deadline":
        with pytest.raises((CallTimeout, dspex.LMTimeoutError)):
            next(items)
    elif how == "close":
        items.close()
    else:
        del items
    endpoint.gone_within()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("how", ["aclose", "cancel", "drop", "deadline"])
def test_an_awaited_stream_does_too(supervisor: Supervisor, endpoint: HeldEndpoint, route: str, how: str) -> None:
    """process: closed, its task cancelled, only forgotten, or out of time."""
    timeout = 2.0 if how == "deadline" else PATIENCE
    program = _program(supervisor, endpoint.lm(), route, timeout=timeout)

    async def read() -> None:
        items: Any = program.astream(question="q")
        server = _serve(endpoint)
        assert (await anext(items)).text == "one"
        await asyncio.to_thread(server.join, PATIENCE)
        endpoint.push(" two")
        assert (await anext(items)).text.strip() == "two"
        if how == "aclose":
            await items.aclose()
        elif how == "cancel":
            task = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE)
            assert task.cancelled()
        elif how == "deadline":
            with pytest.raises((CallTimeout, dspex.LMTimeoutError)):
                await anext(items)
        del items
        await asyncio.to_thread(endpoint.gone_within)

    asyncio.run(read())


def test_a_busy_worker_does_not_keep_a_stream_open(supervisor: Supervisor, endpoint: HeldEndpoint) -> None:
    """process: the host closes what it carries for a call that nobody waits for, whatever the worker is doing."""
    items: Any = _program(supervisor, endpoint.lm(), "python").stream(question="q")
    server = _serve(endpoint)
    assert next(items).text == "one"
    server.join(PATIENCE)
    pid = next(row["pid"] for row in supervisor.stats()["dspy"]["workers"] if row["phase"] == "ready")
    freeze(pid)
    began = time.monotonic()
    try:
        items.close()
        endpoint.gone_within()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - began < PATIENCE
