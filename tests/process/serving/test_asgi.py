"""Process: programs behind real HTTP: answers, streams, batches, errors, disconnects, limits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM, FakeReply
from tests.support.serving.served import Served, events_of
from tests.support.waiting import SOON, eventually


def said(messages: list[dict[str, Any]]) -> Any:
    """What the model says, by what it is asked."""
    asked = str(messages[-1]["content"])
    if "hang" in asked:
        return FakeReply(hang=True)
    if "break" in asked:
        return FakeReply(status=500, error="the prompt was: break")
    return FakeReply(
        {"reasoning": "I know.", "answer": "It is Paris."}, usage={"prompt_tokens": 70, "completion_tokens": 30}
    )


QUEUE = 16


@pytest.fixture(scope="module")
def model() -> Iterator[FakeLM]:
    with FakeLM(said, retries=0, price=(1.0, 1.0)) as lm:
        yield lm


@pytest.fixture(scope="module")
def served(model: FakeLM) -> Iterator[Served]:
    """The same program natively and in workers, of a supervisor that the application starts and stops."""
    supervisor = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, concurrency=2, queue_limit=QUEUE)])
    native = dspex.chain_of_thought("question -> answer", lm=model)
    worker = native.using(implementation="python", supervisor=supervisor)
    limits: dict[str, Any] = {"timeout": 60.0, "batch_limit": 40, "body_limit": 5000, "budget_tokens": 10_000}
    with Served(dspex.asgi({"qa": native, "worker": worker}, **limits)) as served:
        assert supervisor.is_running
        served.workers = supervisor
        yield served
    assert not supervisor.is_running


BOTH = pytest.mark.parametrize("name", ["qa", "worker"])


@BOTH
def test_an_answer_is_the_outputs_and_what_they_cost(served: Served, name: str) -> None:
    """process"""
    answer = served.post(f"/{name}", {"question": "Capital of France?"})
    assert (answer.status_code, answer.json()) == (200, {"reasoning": "I know.", "answer": "It is Paris."})
    assert answer.headers["x-dspex-tokens"] == "100"
    assert float(answer.headers["x-dspex-cost-usd"]) == pytest.approx(0.0001)
    assert answer.headers["x-dspex-cached"] == "false"


@BOTH
@pytest.mark.parametrize("way", ["path", "accept"])
def test_a_stream_is_chunks_then_usage_then_the_prediction(served: Served, name: str, way: str) -> None:
    """process: chunks by predictor and field, whose texts are the fields."""
    path, headers = (f"/{name}/stream", {}) if way == "path" else (f"/{name}", {"accept": "text/event-stream"})
    answer = served.post(path, {"question": "Capital of France?"}, **headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [kind for kind, _ in events if kind != "chunk"] == ["usage", "prediction"]
    assert events[-1][1] == {"reasoning": "I know.", "answer": "It is Paris."}
    texts: dict[tuple[str, str], str] = {}
    for kind, data in events:
        if kind == "chunk":
            key = data["predictor"], data["field"]
            texts[key] = texts.get(key, "") + data["text"]
    assert texts == {("predict", "reasoning"): "I know.", ("predict", "answer"): "It is Paris."}


def test_chunks_arrive_while_the_model_still_speaks(served: Served, model: FakeLM) -> None:
    """process: the first piece is read while the endpoint holds the rest back."""
    from tests.support.lm.held_endpoint import HeldEndpoint

    endpoint = HeldEndpoint()
    program = dspex.predictor("predict", "question -> answer", lm=endpoint.lm())
    with Served(dspex.asgi({"held": program})) as held, held.raw("/held/stream", {"question": "?"}) as connection:
        endpoint.accept()
        endpoint.push("[[ ## answer ## ]]\n", "It is ", "Paris", " and ", "more")
        read = b""
        while b"It is" not in read:
            read += connection.recv(4096)
        assert b"prediction" not in read
        endpoint.push(" words.\n\n[[ ## completed ## ]]")
        endpoint.finish()
        while b"event: prediction" not in read:
            read += connection.recv(4096)
        assert b'"answer":"It is Paris and more words."' in read
    endpoint.close()


@BOTH
def test_a_batch_gives_for_each_row_its_prediction_or_its_problem(served: Served, name: str) -> None:
    """process: in their order."""
    rows: list[Any] = [{"question": f"{n}?"} for n in range(5)] + [{"question": "break"}, {"query": "?"}, "no object"]
    found = served.post(f"/{name}/batch", rows).json()
    assert [row["prediction"]["answer"] for row in found[:5]] == ["It is Paris."] * 5
    assert [row["problem"]["error"] for row in found[5:]] == ["LMServerError", "InvalidInput", "InvalidInput"]
    assert all(row["usage"]["tokens"] == 100 for row in found if "prediction" in row)


def test_a_batch_is_bounded(served: Served) -> None:
    """process: refused with both figures before anything is asked."""
    answer = served.post("/qa/batch", [{"question": "?"}] * 41)
    assert answer.status_code == 422
    assert "41" in answer.text and "40" in answer.text
    assert served.post("/qa/batch", {"question": "?"}).status_code == 422
    assert served.post("/qa/batch", []).json() == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"question": "?"', "application/json", 400), (b'{"question": NaN}', "application/json", 400),
        (b"\xff", "application/json", 400), (b"[" * 4000, "application/json", 400), (b"", "application/json", 400),
        (b"[]", "application/json", 422), (b"3", "application/json", 422), (b"null", "application/json", 422),
        (b'{"question": "?"}', "text/plain", 415), (b'{"question": "?"}', "application/x-www-form-urlencoded", 415),
        (b'{"question": "' + b"x" * 5000 + b'"}', "application/json", 413),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(served: Served, content: bytes, kind: str, status: int) -> None:
    """process: as problem JSON, on every route of a program."""
    for path in ("/qa", "/qa/stream", "/qa/batch"):
        if path == "/qa/batch" and content == b"[]":
            continue
        answer = served.client.post(path, content=content, headers={"content-type": kind})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
        assert answer.json()["retryable"] == "no"


def test_a_body_without_a_length_is_bounded_too(served: Served) -> None:
    """process"""
    pieces = (b" " * 1000 for _ in range(7))
    answer = served.client.post("/qa", content=pieces, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (413, 413)


def test_unknown_paths_and_methods_are_problems(served: Served) -> None:
    """process"""
    answer = served.post("/qb", {})
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no program 'qb'. Did you mean 'qa'?")
    answer = served.client.get("/qa")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_an_error_before_the_first_chunk_has_a_status_of_its_own(served: Served) -> None:
    """process: and quotes neither the prompt nor what the endpoint said."""
    for path in ("/qa", "/qa/stream"):
        answer = served.post(path, {"question": "break"})
        assert (answer.status_code, answer.json()["error"]) == (502, "LMServerError")
        assert "break" not in answer.text and "prompt was" not in answer.text


@BOTH
@pytest.mark.parametrize("end", ["", "/stream", "/batch"])
def test_a_call_whose_client_goes_away_is_cancelled(served: Served, model: FakeLM, name: str, end: str) -> None:
    """process: its request to the model ends at once, and its slot is free."""
    asked, gone = len(model.requests), model.hung_up
    row = {"question": "hang"}
    connection = served.raw(f"/{name}{end}", [row] if end == "/batch" else row)
    model.wait_for(lambda: len(model.requests) > asked)
    connection.close()
    model.wait_for(lambda: model.hung_up > gone, SOON)
    assert served.post(f"/{name}", {"question": "still there?"}).status_code == 200


def test_a_queued_call_whose_client_goes_away_is_never_sent(served: Served, model: FakeLM) -> None:
    """process: the queue shrinks when its clients leave; what finds it full is told to come again."""
    asked, gone = len(model.requests), model.hung_up
    running = [served.raw("/worker", {"question": "hang"}) for _ in range(2)]
    model.wait_for(lambda: len(model.requests) == asked + 2)
    queued = [served.raw("/worker", {"question": "hang"}) for _ in range(QUEUE)]
    eventually(lambda: served.workers.stats()["dspy"]["queued"] == QUEUE)
    answer = served.post("/worker", {"question": "?"})
    assert answer.status_code == 503
    assert (answer.json()["error"], answer.json()["retryable"]) == ("PoolSaturated", "now")
    assert int(answer.headers["retry-after"]) >= 1
    for connection in queued:
        connection.close()
    eventually(lambda: served.workers.stats()["dspy"]["queued"] == 0)
    for connection in running:
        connection.close()
    model.wait_for(lambda: model.hung_up == gone + 2, SOON)
    assert served.post("/worker", {"question": "?"}).status_code == 200
    assert len(model.requests) == asked + 3  # two that hung, and the last


@BOTH
@pytest.mark.parametrize("end", ["", "/stream"])
def test_a_deadline_from_a_header(served: Served, model: FakeLM, name: str, end: str) -> None:
    """process"""
    gone = model.hung_up
    began = time.monotonic()
    answer = served.post(f"/{name}{end}", {"question": "hang"}, x_dspex_timeout="0.5")
    assert time.monotonic() - began < 0.5 + SOON
    assert answer.status_code == 504
    assert answer.json()["retryable"] in ("now", "if_idempotent")
    model.wait_for(lambda: model.hung_up > gone, SOON)


def test_the_deadline_of_a_batch_is_that_of_its_rows(served: Served) -> None:
    """process: those that ended keep their predictions."""
    rows = [{"question": "hang"}, {"question": "Capital?"}]
    found = served.post("/qa/batch", rows, x_dspex_timeout="3").json()
    assert found[0]["problem"]["status"] == 504
    assert found[1]["prediction"]["answer"] == "It is Paris."


@BOTH
def test_a_budget_from_a_header_is_that_of_the_request(served: Served, name: str) -> None:
    """process: of a batch as a whole; what is over the server's is refused before anything is asked."""
    for header in (
        {"x_dspex_budget_tokens": "100"},
        {"x_dspex_budget_requests": "1"},
        {"x_dspex_budget_usd": "0.0001"},
    ):
        assert served.post(f"/{name}", {"question": "?"}, **header).status_code == 200
    assert served.post(f"/{name}", {"question": "?"}, x_dspex_budget_tokens="10001").status_code == 400
    assert "10000" in served.post(f"/{name}", {"question": "?"}, x_dspex_budget_tokens="10001").text
    rows = [{"question": f"{n}?"} for n in range(40)]
    found = served.post("/qa/batch", rows, x_dspex_budget_requests="1").json()
    spent = [row["problem"] for row in found if "problem" in row]
    assert 0 < len(spent) < 40  # those under way when the first was answered may go over it
    assert {(problem["status"], problem["error"]) for problem in spent} == {(402, "BudgetExceeded")}


def test_probes_and_metrics(served: Served) -> None:
    """process"""
    assert served.client.get("/livez").json() == {"status": "alive"}
    assert served.client.get("/readyz").json() == {"status": "ready"}
    assert "python_info" in served.client.get("/metrics").text


def test_as_many_requests_run_as_may(model: FakeLM) -> None:
    """process: the next is told to come again; a place that is given back is there."""
    program = dspex.predictor("predict", "question -> answer", lm=model)
    with Served(dspex.asgi({"qa": program}, request_limit=1)) as one:
        asked = len(model.requests)
        with one.raw("/qa", {"question": "hang"}):
            model.wait_for(lambda: len(model.requests) > asked)
            answer = one.post("/qa", {"question": "?"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        eventually(lambda: one.post("/qa", {"question": "?"}).status_code == 200)


def test_a_program_of_a_class_goes_by_its_name(model: FakeLM) -> None:
    """process"""

    class Capital(dspex.Signature):
        """Name the capital."""

        question: str = dspex.InputField(desc="which country")
        answer: str = dspex.OutputField()

    with Served(dspex.asgi(dspex.predictor("predict", Capital, lm=model))) as one:
        assert one.post("/Capital", {"question": "France?"}).json() == {"answer": "It is Paris."}
        operation = one.client.get("/openapi.json").json()["paths"]["/Capital"]["post"]
        assert operation["description"] == "Name the capital."


def kinds(model: FakeLM) -> dict[str, Any]:
    """A program of every kind."""
    qa = dspex.chain_of_thought("question -> answer", lm=model)
    passages = dspex.BM25Index(["Paris is a city.", "Rome is a city."])
    return {
        "best": dspex.best_of_n(qa, N=2, reward_fn=lambda inputs, made: 1.0),
        "majority": dspex.majority(qa, n=2),
        "ensemble": dspex.ensemble([qa, qa]),
        "rag": dspex.rag(passages, "context: list[str], question -> answer", lm=model),
        "react": dspex.react("question -> answer", tools=[len_of], lm=model),
        "typed": dspex.function(lambda question: {"answer": question}, signature="question -> answer", lm=model),
        "open": dspex.function(lambda question, n=3: [question, n], lm=model),
    }


def len_of(text: str) -> int:
    """Count the letters."""
    return len(text)


def test_every_kind_of_program_is_served(fake: Any) -> None:
    """process: it takes what its caller gives, not what it fills in itself, and its document is valid."""
    agent = {"next_thought": "I know.", "next_tool_name": "finish", "next_tool_args": {}}
    model = fake({"": {"reasoning": "none", "answer": "Paris", **agent}}, cycle=True)
    programs = kinds(model)
    with Served(dspex.asgi(programs)) as one:
        schemas = one.client.get("/openapi.json").json()["components"]["schemas"]
        for name in programs:
            assert schemas[f"{name}Inputs"]["required"] == ["question"], name
            found = one.post(f"/{name}", {"question": "Paris"})
            assert found.status_code == 200, (name, found.text)
            last = events_of(one.post(f"/{name}/stream", {"question": "Paris"}).text)[-1]
            assert last == ("prediction", found.json()), name
            assert found.json() == ["Paris", 3] if name == "open" else found.json()["answer"] == "Paris"


def test_mounted_in_another_application(model: FakeLM) -> None:
    """process: with its lifespan passed on; the document says where it is."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    inner = dspex.asgi({"qa": dspex.predictor("predict", "question -> answer", lm=model)}, token="t0ken", mcp=True)
    outer = Starlette(routes=[Mount("/ai", inner)], lifespan=inner.router.lifespan_context)
    with Served(outer) as one:
        assert one.client.get("/ai/readyz").status_code == 200
        assert one.post("/ai/qa", {"question": "?"}).status_code == 401
        given = {"authorization": "Bearer t0ken"}
        assert one.post("/ai/qa", {"question": "?"}, **given).json() == {"answer": "It is Paris."}
        assert one.client.get("/ai/openapi.json", headers=given).json()["servers"] == [{"url": "/ai"}]


def test_nothing_of_it_is_imported_unless_it_is_used() -> None:
    """process"""
    import subprocess
    import sys

    code = (
        "import sys, dspex; dspex.predictor('predict', 'q -> a', lm=dspex.LM('openai/any', api_key='k'));"
        "print([n for n in sys.modules if n.split('.')[0] in ('starlette', 'uvicorn', 'mcp') or 'dspex.serving' in n])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
