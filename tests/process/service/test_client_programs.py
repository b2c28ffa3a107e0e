"""Process: every program verb over `dspex.connect()`; tools, metrics and rewards run in the client's process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.control import Client
from dspex.testing import FakeLM
from tests.support.client_service import KEY, ServiceOfPrograms, served

ROWS = [{"question": f"<row-{number}>", "answer": f"row-{number}"} for number in range(6)]
QA = "question -> answer"


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceOfPrograms]:
    with served(size=1, concurrency=2, more="[clients.poor]\nbudget_tokens = 1\n") as running:
        yield running


@pytest.fixture
def client(service: ServiceOfPrograms) -> Iterator[Client]:
    with Client(service.socket, client="web") as connected:
        yield connected


def lookup(key: str) -> str:
    """Look a key up."""
    return f"{os.getpid()} has <{key}>"


async def alookup(key: str) -> str:
    """Look a key up."""
    await asyncio.sleep(0)
    return lookup(key)


alookup.__name__ = "lookup"


def is_right(example: Any, prediction: Any, trace: Any = None) -> bool:
    _called_in.add(os.getpid())
    return bool(example["answer"] == prediction["answer"])


def reward(inputs: Any, prediction: Any) -> float:
    _called_in.add(os.getpid())
    return float(prediction.answer == "best")


_called_in: set[int] = set()


def doubled(question: str) -> str:
    """A native step."""
    return question * 2


def _native(client: Client) -> None:
    qa = dspex.predictor("predict", QA, supervisor=client)
    made = qa(question="<n>")
    assert (made.answer, made.route) == ("n", "native") and made.cost_usd
    assert asyncio.run(qa.acall(question="<na>")).answer == "na"
    assert [str(part.text) for part in qa.stream(question="<ns>") if isinstance(part, dspex.Chunk)] == ["ns"]
    assert qa(question="<n>").cached  # in the service
    assert dspex.chain_of_thought(QA, supervisor=client)(question="<nc>").reasoning == "as asked"


def _in_workers(client: Client) -> None:
    qa = dspex.predictor("predict", QA, supervisor=client, implementation="python")
    made = qa(question="<w>")
    assert made.answer == "w" and made.route.startswith("python:dspy/") and made.cost_usd
    assert asyncio.run(qa.acall(question="<wa>")).answer == "wa"
    assert [part.text for part in qa.stream(question="<ws>") if isinstance(part, dspex.Chunk)] == ["ws"]

    async def streamed() -> list[Any]:
        return [part async for part in qa.astream(question="<was>")]

    assert asyncio.run(streamed())[-1].answer == "was"
    assert qa.using(trace=True)(question="<wt>").trace[0].outputs == {"answer": "wt"}
    assert "<wr>" in str(qa.render(question="<wr>"))
    rows = dspex.map(qa, [{"question": f"<m{number}>"} for number in range(8)])
    assert [row.result().answer for row in rows] == [f"m{number}" for number in range(8)]


def _react(client: Client) -> None:
    for tool in (lookup, alookup):
        agent = dspex.react(QA, tools=[tool], supervisor=client)
        made = agent(question=f"<r-{tool is lookup}>") if tool is lookup else asyncio.run(agent.acall(question="<ra>"))
        assert str(os.getpid()) in made.trajectory["observation_0"]

    def lookup_nothing(key: str) -> str:
        raise LookupError(f"no {key}")

    lookup_nothing.__name__ = "lookup"
    made = dspex.react(QA, tools=[lookup_nothing], supervisor=client)(question="<rn>")
    assert "LookupError: no rn" in made.trajectory["observation_0"]


def _module(client: Client) -> None:
    assert dspex.module("client_modules:Own", supervisor=client)(question="<own>").answer == "own"


def _strategies(client: Client) -> None:
    for where in ("native", "python"):
        best = dspex.best_of_n(QA, reward_fn=reward, N=2, threshold=1.0, supervisor=client, implementation=where)
        assert best(question=f"<best> {where}").answer == "best"
    refined = dspex.refine(QA, reward_fn=reward, N=2, threshold=1.0, supervisor=client, implementation="python")
    assert refined(question="<best> refined").answer == "best"
    found = dspex.rag(lambda query, k=3: ["<p1>"], "context, question -> answer", supervisor=client)(question="rag")
    assert found.passages == ["<p1>"]
    assert _called_in == {os.getpid()}


def _evaluate(client: Client) -> None:
    for where in ("native", "python"):
        qa = dspex.predictor("predict", QA, supervisor=client, implementation=where)
        for metric in (is_right, "exact_match"):
            assert dspex.evaluate(qa, ROWS, metric=metric, supervisor=client).score == 100.0
    assert _called_in == {os.getpid()}


def _optimize(client: Client) -> None:
    job = dspex.optimize(
        QA, ROWS, optimizer="copro", metric=is_right, supervisor=client, breadth=2, depth=1, wait=False, progress=False
    )
    assert [event.kind for event in job.events()][-1] == "done" and job.state == "done"
    best = job.result()
    assert best.score == 100.0 and best(question="<o>").answer == "o"
    assert _called_in == {os.getpid()}


def _pipelines(client: Client) -> None:
    worker = dspex.python("dspy.Predict", signature="twice -> other", name="worker")
    pipe = dspex.pipeline([
        dspex.native(doubled, into="twice"),
        dspex.parallel([worker, dspex.python("dspy.Predict", signature="twice -> answer")], into="both"),
    ])  # fmt: skip
    expected = [{"other": "p"}, {"answer": "p"}]
    assert pipe.run({"question": "<p>"}, supervisor=client)["both"] == expected
    assert asyncio.run(pipe.arun({"question": "<p>"}, supervisor=client))["both"] == expected
    assert [*pipe.stream({"question": "<p>"}, supervisor=client)][-1].kind == "run_finished"


VERBS: dict[str, Callable[[Client], None]] = {
    "natively": _native,
    "in workers": _in_workers,
    "agents": _react,
    "modules": _module,
    "strategies": _strategies,
    "evaluations": _evaluate,
    "optimizations": _optimize,
    "pipelines": _pipelines,
}


@pytest.mark.parametrize("verb", VERBS)
def test_programs_run_over_a_client(verb: str, client: Client) -> None:
    """process: with tools, metrics and rewards of this process, and the service's language model."""
    _called_in.clear()
    VERBS[verb](client)


def test_a_client_is_the_default_supervisor(service: ServiceOfPrograms, tmp_path: Path) -> None:
    """process: `configure(supervisor=client)`; a program that was saved here is loaded here; the service lives on."""
    client = dspex.connect(service.socket)
    try:
        dspex.configure(supervisor=client)
        assert dspex.predict(QA, {"question": "<d>"}, implementation="python").answer == "d"
        best = dspex.optimize(QA, ROWS, optimizer="labeled", metric=is_right, progress=False)
        best.save(tmp_path / "best.json")
        assert dspex.load(tmp_path / "best.json")(question="<l>").answer == "l"
    finally:
        dspex.defaults.stop_default_supervisor()
        dspex.configure(supervisor=None)
    assert not client.is_open
    with Client(service.socket) as other:
        assert other.call("dspy", "ping")


def test_keys_stay_in_the_service(client: Client, service: ServiceOfPrograms) -> None:
    """process: LMs by the service's names; the client has neither the key nor a say in where it is sent."""
    qa = dspex.predictor("predict", QA, supervisor=client)
    for where in ("native", "python"):
        assert qa.using(lm="cheap", implementation=where)(question="<k>").answer == "cheap"
        assert qa.using(lm="default", implementation=where)(question=f"<k> {where}").answer == "k"
    for asked in (*service.lm.requests, *service.cheap.requests):
        assert asked.headers["authorization"] == f"Bearer {KEY}"
    told = [client.lms.default, *client.lms.by_name.values()]
    assert KEY not in str(client.greeting) and all(lm is not None and lm.api_key != KEY for lm in told)
    with pytest.raises(dspex.UnknownName, match="cheap"):
        qa.using(lm="chepa")(question="q")
    assert client.lms.default is not None
    with pytest.raises(dspex.LMConfigurationError, match="the service's to say"):
        client.lms.default.replace(api_base="http://127.0.0.1:9/v1")
    warm = client.lms.default.replace(temperature=0.7)
    assert (
        qa.using(lm=warm)(question="<warm>").answer
        == qa.using(lm=warm, implementation="python")(question="<warm>").answer
    )
    assert service.lm.requests[-1].body["temperature"] == 0.7


def test_an_own_language_model_is_asked_by_this_process(client: Client) -> None:
    """process: also for a program that runs in the service's workers, whole and streamed."""
    with FakeLM(lambda messages: {"answer": "mine"}, model="openai/mine") as mine:
        qa = dspex.predictor("predict", QA, supervisor=client, lm=mine)
        assert qa(question="<o>").answer == qa.using(implementation="python")(question="<o1>").answer == "mine"
        parts = [*qa.using(implementation="python").stream(question="<o2>")]
        assert parts[-1].answer == "mine" and len(mine.requests) == 3
    with pytest.raises(dspex.LMError):  # its endpoint is closed
        qa.using(implementation="python")(question="<o3>")


def test_usage_and_budgets_are_each_clients(service: ServiceOfPrograms) -> None:
    """process: counted by name, over connections; bounded by the settings, and further by the client."""
    with Client(service.socket, client="counted") as one:
        before = dspex.usage()["total_tokens"]
        qa = dspex.predictor("predict", QA, supervisor=one)
        for where in ("native", "python"):
            qa.using(implementation=where)(question=f"<u> {where}")
        used = one.usage()
        assert used["requests"] == 2 and used["cost_usd"] > 0 and used["budget_usd"] is None
        assert dspex.usage()["total_tokens"] - before == used["total_tokens"]
    with Client(service.socket, client="counted", budget_tokens=used["total_tokens"]) as again:
        assert again.usage()["requests"] == 2
        for where in ("native", "python"):
            with pytest.raises(dspex.BudgetExceeded, match="client 'counted'"):
                dspex.predictor("predict", QA, supervisor=again, implementation=where)(question="<more>")
    with Client(service.socket, client="poor", budget_tokens=1000) as poor:
        assert poor.usage()["budget_tokens"] == 1
        assert dspex.predict(QA, {"question": "<poor>"}, supervisor=poor).answer == "poor"
        with pytest.raises(dspex.BudgetExceeded):
            dspex.predict(QA, {"question": "<poorer>"}, supervisor=poor)


def test_a_tool_may_call_its_own_service(client: Client) -> None:
    """process: beyond the pool's slots, or it would wait for itself."""

    def lookup_deeper(key: str) -> str:
        inner = dspex.predictor("predict", QA, supervisor=client, implementation="python", timeout=20)
        return str(inner(question=f"<inner-{key}>").answer)

    lookup_deeper.__name__ = "lookup"
    agent = dspex.react(QA, tools=[lookup_deeper], supervisor=client, timeout=60)
    rows = [*dspex.map(agent, [{"question": f"<d{number}>"} for number in range(8)], max_in_flight=8)]
    assert [row.result().trajectory["observation_0"] for row in rows] == [f"inner-d{number}" for number in range(8)]


def test_a_tool_that_hangs_harms_its_own_client_alone(client: Client, service: ServiceOfPrograms) -> None:
    """process: its call ends at its deadline; others of the same pool are answered meanwhile."""
    release, has_begun = threading.Event(), threading.Event()

    def lookup_forever(key: str) -> str:
        has_begun.set()
        release.wait(60)
        return "late"

    lookup_forever.__name__ = "lookup"
    agent = dspex.react(QA, tools=[lookup_forever], supervisor=client)
    errors: list[BaseException] = []

    def hang() -> None:
        try:
            agent.using(timeout=15)(question="<h>")
        except dspex.CallTimeout as error:
            errors.append(error)

    hanging = threading.Thread(target=hang)
    hanging.start()
    try:
        assert has_begun.wait(30)
        with Client(service.socket) as other:
            asked = dspex.react(QA, tools=[lookup], supervisor=other)(question="<fine>")
            assert str(os.getpid()) in asked.trajectory["observation_0"]
        hanging.join(60)
        assert errors
    finally:
        release.set()


def test_what_does_not_cross_is_refused(client: Client, service: ServiceOfPrograms) -> None:
    """process: modules beside the imports, Python objects, and code by value; nothing was asked of the model."""
    asked = len(service.lm.requests)

    class Odd:
        pass

    with pytest.raises(dspex.UnknownName, match="imports"):
        dspex.module("os:system", supervisor=client)(question="q")
    own = dspex.module("client_modules:Own", supervisor=client)
    with pytest.raises(dspex.EncodeError, match="no pickle crosses"):
        own(question=Odd())

    def by_value(question: str) -> str:
        return question

    with pytest.raises(dspex.DspexError):
        dspex.module(by_value, supervisor=client)(question="q")
    assert len(service.lm.requests) == asked
