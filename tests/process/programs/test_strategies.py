"""Process: programs that ask another program: both routes send the same requests and end alike, or say why not."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import dspex
from dspex.errors import (
    AdapterParseError,
    CallTimeout,
    CheckFailed,
    DspexError,
    InvalidInput,
    LMAuthError,
    SettingsError,
    UnknownName,
)
from dspex.programs.options.routing import Reason
from dspex.services.services import services_of
from dspex.testing import FakeLM, FakeReply
from tests.support.paths import ROOT
from tests.support.programs import strategy_probe as probe

UNREADABLE = FakeReply("no such format at all")
REFUSED = FakeReply(status=401, error="no")


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def by_length(inputs: Any, out: Any) -> float:
    return float(len(out.answer))


def by_score(inputs: Any, out: Any) -> float:
    assert isinstance(inputs["tags"], list) and type(out.score) is float
    return float(out.score) - len(inputs["tags"])


def picky(inputs: Any, out: Any) -> float:
    if "x" in out.answer:
        raise LookupError(f"no {out.answer}")
    return float(len(out.answer))


def answers(*texts: str) -> list[Any]:
    return [{"answer": text} for text in texts]


def outcomes(sup: dspex.Supervisor, make: Callable[..., Any], script: Any, inputs: Any, **lm: Any) -> list[Any]:
    """What each route sent, and how it ended."""
    found = []
    for route in ("native", "python"):
        with FakeLM(list(script), retries=0, **lm) as server:
            program = make(lm=server, supervisor=sup, implementation=route)
            try:
                out: Any = program(**inputs)
                ended = ("out", out.to_dict())
                assert out.route == ("native" if route == "native" else "python:dspy/0")
            except Exception as error:
                ended = ("error", type(error), str(error) if not isinstance(error, DspexError) else "")
            found.append(([request.raw for request in server.requests], ended))
    return found


BEST = {
    "the highest of all": (answers("a", "ccc", "bb"), {}),
    "the earlier of equals": (answers("abc", "xyz", "no"), {}),
    "enough ends it": (answers("a", "ccc", "dddd"), {"threshold": 3}),
    "never enough": (answers("a", "cc", "b"), {"threshold": 99.5}),
    "one is unreadable": ([UNREADABLE, UNREADABLE, *answers("cc", "b")], {}),
    "the last is unreadable": ([*answers("a", "cc"), UNREADABLE, UNREADABLE], {}),
    "all of one fail": ([UNREADABLE] * 2, {"N": 1}),
    "all of two fail": ([UNREADABLE] * 4, {"N": 2}),
    "all of three fail": ([UNREADABLE] * 6, {"N": 3}),
    "one may fail": ([UNREADABLE] * 6, {"N": 3, "fail_count": 1}),
    "all are refused": ([REFUSED] * 4, {"N": 4}),
    "first one, then refused": ([*answers("ok"), REFUSED, REFUSED, REFUSED], {"N": 4, "fail_count": 1}),
    "the reward raises once": (answers("x", "bb", "c"), {"reward_fn": picky}),
    "the reward raises always": (answers("x1", "x2", "x3"), {"reward_fn": picky}),
    "the reward raises at the end": (answers("x1", "x2"), {"reward_fn": picky, "N": 2}),
    "no reward is a number": (answers("a", "b"), {"N": 2, "reward_fn": lambda inputs, out: float("nan")}),
    "a rollout of its own": (answers("a", "b", "c"), {"rollout_id": 7}),
    "an option of the model's": (answers("a", "b", "c"), {"config": {"max_tokens": 50, "temperature": 0.2}}),
    "in json": (answers("a", "bb", "c"), {"adapter": "json"}),
    "with demos": (answers("a", "bb", "c"), {"demos": [{"question": "d", "answer": "e"}]}),
    "with reasoning": ([{"reasoning": "r", "answer": "a"}, {"reasoning": "s", "answer": "bb"}],
                       {"N": 2, "module": "chain_of_thought"}),
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("case", BEST)
def test_best_of_n_is_dspys_on_both_routes(sup: dspex.Supervisor, case: str) -> None:
    """parity: dspy.BestOfN in a worker and the native loop send the same requests and end alike."""
    script, options = BEST[case]
    options = {"reward_fn": by_length, "N": 3, **options}
    native, python = outcomes(
        sup, lambda **how: dspex.best_of_n("question -> answer", **options, **how), script, {"question": "q"}
    )
    assert native[0] == python[0]
    assert native[1] == python[1]
    assert all(json.loads(body)["temperature"] == 1.0 for body in native[0])


@pytest.mark.parity
def test_rewards_see_typed_values_on_both_routes(sup: dspex.Supervisor) -> None:
    """parity: the inputs and outputs of a reward have the signature's types, whoever made them."""
    script = [{"answer": "a", "score": 1}, {"answer": "b", "score": 3.5}]
    native, python = outcomes(
        sup,
        lambda **how: dspex.predictor(
            "best_of_n", "question, tags: list[str] -> answer, score: float", reward_fn=by_score, N=2, **how
        ),
        script,
        {"question": "q", "tags": ["t"]},
    )
    assert native == python and native[1] == ("out", {"answer": "b", "score": 3.5})


VOTES = {
    "the commonest": (answers("The Rome!", "Paris", "rome", "oslo", "x"), {}),
    "the earlier of equals": (answers("a1", "b1", "B1", "a1 "), {"n": 4}),
    "nothing but blanks": (answers("a", "The", "an"), {"n": 3}),
    "one": (answers("only"), {"n": 1}),
    "compared by a function": (answers("aa", "b", "cc"), {"n": 3, "normalize": len}),
    "warm already": (answers("a b", "b", "b"), {"n": 3, "config": {"temperature": 0.9}}),
    "one is unreadable": ([*answers("a", "b"), UNREADABLE, *answers("b", "b", "c")], {"n": 3}),
    "with reasoning": ([{"reasoning": "r", "answer": x} for x in "abb"], {"n": 3, "module": "chain_of_thought"}),
    "another field": ([{"answer": x, "why": y} for x, y in ("az", "bz", "by")], {"n": 3, "field": "answer"}),
    "not text": ([{"answer": 2}, {"answer": 3}, {"answer": 3}], {"n": 3}),
}


@pytest.mark.parity
@pytest.mark.parametrize("case", VOTES)
def test_majority_is_dspys_on_both_routes(sup: dspex.Supervisor, case: str) -> None:
    """parity: dspy.majority in a worker and the native vote choose the same of the same answers."""
    script, options = VOTES[case]
    text = {"another field": "question -> answer, why", "not text": "question -> answer: int"}.get(
        case, "question -> answer"
    )
    native, python = outcomes(sup, lambda **how: dspex.majority(text, **options, **how), script, {"question": "q"})
    assert native == python
    assert native[1][0] == "out"


def short(inputs: Any, out: Any) -> bool | str:
    return len(out.answer) <= 2 or "at most two letters"


@pytest.mark.parity
@pytest.mark.parametrize("module", ["predict", "chain_of_thought"])
@pytest.mark.parametrize("script", [answers("a"), answers("long", "ok"), answers("long", "long", "long")], ids=str)
def test_assertions_ask_the_same_on_both_routes(sup: dspex.Supervisor, module: str, script: list[Any]) -> None:
    """parity: the hint is in the same place of the same prompt, and the end is the same."""
    native, python = outcomes(
        sup,
        lambda **how: dspex.assertions("question -> answer", [short], module=module, **how),
        script,
        {"question": "q"},
    )
    assert native == python
    hints = [b"at most two letters" in body for body in native[0]]
    assert hints == [False, True, True][: len(script)]
    assert native[1][0] == ("out" if len(script) < 3 else "error")


def test_assertions_that_keep_failing_say_what_failed(sup: dspex.Supervisor) -> None:
    """unit: CheckFailed, or the best answer when that is wanted."""
    with FakeLM(answers("long", "longer"), cycle=True) as lm:
        program = dspex.assertions("question -> answer", [short], attempts=2, lm=lm)
        with pytest.raises(CheckFailed, match="at most two letters") as caught:
            program(question="q")
        assert caught.value.attempts == 2
        best = dspex.assertions("question -> answer", [short], attempts=2, on_failure="return", lm=lm)(question="q")
        assert best.answer == "long" and best.usage["openai/fake"]["completion_tokens"] > 0


@pytest.mark.parity
@pytest.mark.parametrize(
    "text", ["question -> answer", "context, question -> answer", "question, facts: list[str] -> answer"]
)
def test_rag_asks_the_same_on_both_routes(sup: dspex.Supervisor, text: str) -> None:
    """parity: the passages of an index of this process are in the same prompt, whoever makes it."""
    index = dspex.BM25Index(["Paris is in France.", "Rome is in Italy.", "Oslo is in Norway."])
    options = {"context": "facts"} if "facts" in text else {}
    native, python = outcomes(
        sup, lambda **how: dspex.rag(index, text, k=2, **options, **how), answers("x"), {"question": "Paris, Rome?"}
    )
    assert native == python
    assert b"Paris is in France." in native[0][0] and b"Oslo" not in native[0][0]
    assert [each["rank"] for each in native[1][1]["passages"]] == [1, 2]


def test_rag_awaits_and_streams(sup: dspex.Supervisor) -> None:
    """collaboration: an async retriever in `acall`, which a blocking call refuses; the answer's text as it comes."""

    async def search(query: str, k: int) -> list[str]:
        return [f"{query} {number}" for number in range(k)]

    with FakeLM({"": {"answer": "two words"}}) as lm:
        program = dspex.rag(search, "question -> answer", k=2, lm=lm, supervisor=sup)
        out = asyncio.run(program.acall(question="q"))
        assert (out.answer, out.passages) == ("two words", ["q 0", "q 1"])
        with pytest.raises(InvalidInput, match="acall"):
            program(question="q")
        for route in ("native", "python"):
            items = list(dspex.rag(lambda q, k: [q], "question -> answer", lm=lm, supervisor=sup,
                                   implementation=route).stream(question="q"))  # fmt: skip
            assert "".join(item.text for item in items[:-1]) == "two words"  # type: ignore[union-attr]
            assert items[-1].passages == ["q"]  # type: ignore[union-attr]


def test_a_remote_retriever_takes_rag_to_a_worker(sup: dspex.Supervisor) -> None:
    """collaboration: DSPy's ColBERTv2 asks its server from the worker; `explain` says so, and native is refused."""
    with _colbert() as url, FakeLM(answers("x")) as lm:
        options: dict[str, Any] = {"url": url, "k": 2, "lm": lm}
        program = dspex.rag("dspy.ColBERTv2", "question -> answer", supervisor=sup, **options)
        assert program.decision.reason is Reason.RETRIEVER and program.decision.pool == "dspy"
        out = program(question="q")
        assert out.route == "python:dspy/0" and [each["text"] for each in out.passages] == ["about q 0", "about q 1"]
        with pytest.raises(SettingsError, match="ColBERTv2"):
            _ = program.using(implementation="native").decision


class _colbert:
    """A server that answers as ColBERTv2's does."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = self.path.partition("query=")[2].partition("&")[0]
                topk = [
                    {"text": f"about {query} {n}", "pid": n, "rank": n, "score": 9.0 - n, "prob": 0.5} for n in (0, 1)
                ]
                body = json.dumps({"topk": topk}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def long_enough(args: Any, pred: Any) -> float:
    return 1.0 if len(pred.answer) >= 3 else 0.25


def _advised(messages: list[dict[str, Any]]) -> Any:
    if "program_trajectory" in messages[0]["content"]:
        return {"discussion": "too short", "advice": {"self": "write more"}}
    return {"answer": "long" if "hint_" in messages[-1]["content"] else "s"}


def test_refine_goes_to_a_worker_where_a_model_gives_the_advice(sup: dspex.Supervisor) -> None:
    """collaboration: the model reads the reward's own source; its advice is the next attempt's hint."""
    with FakeLM(_advised) as lm:
        program = dspex.refine("question -> answer", reward_fn=long_enough, threshold=1.0, lm=lm, supervisor=sup)
        assert program.decision.reason is Reason.FEEDBACK
        out = program(question="q")
        assert out.answer == "long" and out.route == "python:dspy/0"
        assert len(lm.requests) == 3 and out.usage["openai/fake"]["prompt_tokens"] > 0
        advice = lm.requests[1].text
        assert inspect.getsource(long_enough).strip() in advice and "class Predict" in advice
        assert "write more" in lm.requests[2].last


def test_native_refine_is_a_choice_and_tells_what_the_reward_says(sup: dspex.Supervisor) -> None:
    """collaboration: its first request is DSPy's; the advice is the reward's feedback, so no request is made for it."""

    def judged(inputs: Any, out: Any) -> Any:
        return {"score": 1.0 if len(out.answer) > 2 else 0.0, "feedback": "longer, please"}

    first = []
    for route in ("native", "python"):
        with FakeLM(_advised) as lm:
            program = dspex.refine("question -> answer", reward_fn=judged, threshold=1.0, lm=lm, supervisor=sup)
            out = program.using(implementation=route)(question="q")
            assert out.answer == "long"
            first.append(lm.requests[0].raw)
            if route == "native":
                assert len(lm.requests) == 2 and "longer, please" in lm.requests[1].last
    assert first[0] == first[1]


def test_what_decides_the_route_is_named() -> None:
    """unit: explain, for each kind and for what takes it to a worker."""
    with FakeLM("") as lm:
        how: dict[str, Any] = {"lm": lm}
        assert dspex.explain("best_of_n", "q -> a", reward_fn=by_length, **how).reason is Reason.NATIVE
        assert dspex.explain("majority", "q -> a", **how).reason is Reason.NATIVE
        assert dspex.explain("assertions", "q -> a", checks=[short], **how).reason is Reason.NATIVE
        assert dspex.explain("rag", "q -> a", retriever=lambda q, k: [], **how).reason is Reason.NATIVE
        assert dspex.explain("refine", "q -> a", reward_fn=by_length, **how).reason is Reason.FEEDBACK
        assert dspex.explain("best_of_n", "q -> a", reward_fn="exact_match", **how).reason is Reason.REWARD
        assert dspex.explain("best_of_n", "q -> a", reward_fn=by_length, adapter="xml", **how).reason is Reason.NATIVE
        own: Any = "tests.support.programs.own_adapters:Polite"
        assert dspex.explain("best_of_n", "q -> a", reward_fn=by_length, adapter=own, **how).reason is Reason.ADAPTER
        agent = dspex.explain("best_of_n", "q -> a", reward_fn=by_length, module="react", tools=[search], **how)
        assert agent.reason is Reason.TOOLS and agent.detail == "dspy.ReAct"


def search(query: str) -> str:
    """Look it up."""
    return query


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: dspex.best_of_n("q -> a"), SettingsError),
        (lambda: dspex.best_of_n("q -> a", reward_fn=by_length, N=0), InvalidInput),
        (lambda: dspex.best_of_n("q -> a", reward_fn=by_length, module="nonsense"), UnknownName),
        (lambda: dspex.majority("q -> a", field="b"), UnknownName),
        (lambda: dspex.assertions("q -> a", []), SettingsError),
        (lambda: dspex.assertions("q -> a", [short], on_failure="ignore"), SettingsError),
        (lambda: dspex.rag("dspy.Colbert", "q -> a"), UnknownName),
        (lambda: dspex.rag("dspy.ColBERTv2", "q -> a"), SettingsError),
        (lambda: dspex.rag(3, "q -> a"), SettingsError),
        (lambda: dspex.rag(lambda q, k: [q], "context -> a"), UnknownName),
        (lambda: dspex.refine(dspex.majority("q -> a"), reward_fn=by_length), SettingsError),
    ],
)
def test_what_could_never_run_is_refused_at_once(make: Callable[[], Any], error: type[Exception]) -> None:
    """unit"""
    with pytest.raises(error):
        make()


def test_a_saved_program_is_asked_with_its_own_state() -> None:
    """unit: instructions and demos of the inner program are in every attempt, with a hint and without."""
    state = {
        "signature": {
            "instructions": "Be brief.",
            "fields": [
                {"prefix": "Question:", "description": "${question}"},
                {"prefix": "Answer:", "description": "one word"},
            ],
        },
        "demos": [{"question": "earlier", "answer": "then"}],
    }
    plain = dspex.predictor("predict", "question -> answer")
    with FakeLM(answers("long", "ok")) as lm:
        inner = dspex.programs.calling.program.Program("dspy.Predict", plain.signature, state=state, lm=lm.lm)
        assert dspex.assertions(inner, [short], implementation="native")(question="q").answer == "ok"
        for request in lm.requests:
            assert "Be brief." in request.text and "one word" in request.text and "earlier" in request.text


def test_strategies_are_steps_of_pipelines(sup: dspex.Supervisor) -> None:
    """collaboration: on the router's route as native steps, in workers as python steps, by name too."""
    with FakeLM({"": {"answer": "ab"}}) as lm:
        best = dspex.best_of_n("question -> answer", reward_fn=by_length, N=2)
        checked = dspex.assertions("question -> answer", [short])
        p = dspex.pipeline(
            [
                dspex.native(best),
                dspex.python(best),
                dspex.python(checked),
                dspex.python("dspy.majority", signature="question -> answer", n=2),
                dspex.native(dspex.rag(lambda q, k: [q], "question -> answer")),
            ]
        )
        result = p.run({"question": "q"}, lm=lm, supervisor=sup)
        routes = [step.route for step in result.steps]
        assert routes == ["native", "python:dspy/0", "python:dspy/0", "python:dspy/0", "native"]
        assert result["answer"] == "ab" and result.steps[4]["passages"] == ["q"]
        assert len(lm.requests) == 2 + 2 + 1 + 2 + 1


def test_awaiting_a_strategy_gives_the_same(sup: dspex.Supervisor) -> None:
    """collaboration: acall, on both routes."""
    for route in ("native", "python"):
        with FakeLM(answers("a", "bbb", "cc")) as lm:
            program = dspex.best_of_n("question -> answer", reward_fn=by_length, lm=lm, supervisor=sup)
            assert asyncio.run(program.using(implementation=route).acall(question="q")).answer == "bbb"
        with FakeLM(answers("long", "ok")) as lm:
            program = dspex.assertions("question -> answer", [short], lm=lm, supervisor=sup)
            assert asyncio.run(program.using(implementation=route).acall(question="q")).answer == "ok"


@pytest.mark.parametrize("route", ["native", "python"])
@pytest.mark.parametrize(
    ("script", "error"),
    [([UNREADABLE] * 2, AdapterParseError), ([REFUSED], LMAuthError), (answers("x"), LookupError)],
    ids=["unreadable", "401", "reward"],
)
def test_errors_keep_their_classes(
    sup: dspex.Supervisor, route: str, script: list[Any], error: type[Exception]
) -> None:
    """I3: the parser's, the provider's and the reward's own, on both routes."""
    with FakeLM(script, retries=0) as lm:
        program = dspex.best_of_n("question -> answer", reward_fn=picky, N=1, lm=lm, supervisor=sup)
        with pytest.raises(error):
            program.using(implementation=route)(question="q")


def test_what_a_strategy_lends_is_lent_while_its_call_runs(sup: dspex.Supervisor) -> None:
    """collaboration: the reward is known to the workers during the call, and to nobody afterwards."""
    metrics = services_of(sup).metrics
    seen: list[bool] = []

    def watching(inputs: Any, out: Any) -> float:
        seen.append(metrics._metrics.get(program.tool_set) is not None)
        return 1.0

    with FakeLM({"": {"answer": "a"}}) as lm:
        program = dspex.best_of_n("question -> answer", reward_fn=watching, N=2, lm=lm, supervisor=sup)
        program.using(implementation="python")(question="q")
    assert seen == [True, True]
    assert metrics._metrics.get(program.tool_set) is None


def test_a_strategy_is_evaluated_and_cannot_be_saved(sup: dspex.Supervisor, tmp_path: Any) -> None:
    """collaboration: each row calls the reward here; a file could hold no function."""
    with FakeLM(answers("a", "bbb", "bbb", "a")) as lm:
        program = dspex.best_of_n("question -> answer", reward_fn=by_length, N=2, lm=lm, supervisor=sup)
        rows = [{"question": "x", "answer": "bbb"}, {"question": "y", "answer": "no"}]
        found = dspex.evaluate(program, rows, "exact_match", num_threads=1)
        assert found.score == 50.0
    with pytest.raises(SettingsError, match="save the program that it asks"):
        dspex.Optimized(program, 1.0, 0.5).save(tmp_path / "best.json")


@pytest.mark.parametrize(
    ("module", "found", "expected"),
    [
        ("predict", {"module": {"demos": []}, "metadata": {}}, {"demos": []}),
        ("chain_of_thought", {"module.predict": {"demos": []}}, {"predict": {"demos": []}}),
    ],
)
def test_an_optimizers_state_is_the_inner_programs(module: str, found: Any, expected: Any) -> None:
    """unit: DSPy names its parts by the path from the strategy."""
    program = dspex.best_of_n("question -> answer", reward_fn=by_length, module=module)
    assert program.with_state(found).state == expected


def test_a_strategys_timeout_bounds_all_its_attempts() -> None:
    """unit: natively; no attempt begins after it."""

    def slow(inputs: Any, out: Any) -> float:
        over.wait(0.3)
        return 0.0

    over = threading.Event()
    with FakeLM({"": {"answer": "a"}}) as lm:
        program = dspex.best_of_n("question -> answer", reward_fn=slow, N=50, lm=lm, timeout=0.2)
        with pytest.raises(CallTimeout, match=r"dspy\.BestOfN"):
            program(question="q")
        assert len(lm.requests) == 1


@pytest.mark.parity
def test_the_requests_are_those_of_dspy_itself(sup: dspex.Supervisor) -> None:
    """parity: plain DSPy, a worker, and the native route where it is DSPy's, byte for byte and in order."""
    with FakeLM(probe.replies) as lm:
        command = [sys.executable, "-m", probe.__name__, lm.api_base, lm.api_key or ""]
        ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=100)
        theirs, sent = json.loads(ran.stdout), [request.raw for request in lm.requests]
    assert len(sent) > 15 and any(b"long_enough" in body for body in sent)
    for route in ("python", "auto"):
        with FakeLM(probe.replies) as lm:
            assert _outcomes(lm=lm, supervisor=sup, implementation=route) == theirs
            assert [request.raw for request in lm.requests] == sent


def _outcomes(**how: Any) -> list[Any]:
    qa, cot = "question -> answer", {"module": "chain_of_thought"}
    enough: dict[str, Any] = {"reward_fn": probe.long_enough, "threshold": 1.0}
    never: dict[str, Any] = {"reward_fn": probe.never, "threshold": 1.0}
    made: dict[str, Callable[[], Any]] = {
        "refine": lambda: dspex.refine(qa, **enough, **cot, **how)(question="refine"),
        "refine_fails": lambda: dspex.refine(qa, **never, **how)(question="it fails"),
        "best_of_n": lambda: dspex.best_of_n(qa, **enough, **how)(question="best"),
        "best_of_n_fails": lambda: dspex.best_of_n(qa, **never, **how)(question="it fails"),
        "majority": lambda: dspex.majority(qa, n=3, **cot, **how)(question="majority"),
    }
    return [probe.outcome(made[name]) for name in probe.ORDER]


@pytest.mark.parity
def test_rag_over_vectors_asks_the_same_on_both_routes(sup: dspex.Supervisor) -> None:
    """parity: over vectors of a model, and over words and vectors; awaited too, on the loop."""
    documents = ["Paris is in France.", "Rome is in Italy.", "Oslo is in Norway."]
    with FakeLM() as embedder:
        vectors = dspex.VectorIndex(documents, embedder=embedder)
        for index in (vectors, dspex.HybridIndex(dspex.BM25Index(documents), vectors)):
            asked = {"question": "Is Paris in France, and where are Paris and Rome in Italy?"}
            native, python = outcomes(
                sup, lambda index=index, **how: dspex.rag(index, "question -> answer", k=2, **how), answers("x"), asked
            )
            assert native == python
            assert b"Paris is in France." in native[0][0] and b"Oslo" not in native[0][0]
            assert [each["rank"] for each in native[1][1]["passages"]] == [1, 2]
            with FakeLM({"": {"answer": "x"}}) as lm:
                for route in ("native", "python"):
                    program = dspex.rag(index, "question -> answer", k=1, lm=lm, supervisor=sup, implementation=route)
                    out = asyncio.run(program.acall(**asked))
                    assert out.passages[0]["text"] == documents[0] and out.route.startswith(route)
