"""What users write, as type checkers must accept it. Checked by `tests/unit/test_typing.py`; never run."""

from __future__ import annotations

import math
from typing import Any, assert_type

import dspex
from dspex.testing import FakeLM


class QA(dspex.Signature):
    """Answer the question."""

    question: str = dspex.InputField()
    answer: str = dspex.OutputField()
    score: float = dspex.OutputField(desc="from 0 to 1")


class Short(QA):
    """Answer in a word."""


def is_short(inputs: dict[str, Any], prediction: dspex.Prediction) -> float:
    return float(len(prediction.answer) < 9)


def says_what(inputs: dict[str, Any], prediction: dspex.Prediction) -> bool | str:
    return "what" in prediction.answer or "Say what it is."


def weather(city: str) -> str:
    """Tell the weather."""
    return f"Sun in {city}."


# -- settings and models

lm = dspex.LM("openai/gpt-4o-mini", temperature=0.2, top_p=0.9, seed=7, stop=["\n"], n=2, timeout=30, retries=1)
spare = lm.replace(model="openai/gpt-4o", fallbacks=(lm,), price=(0.15, 0.6), headers={"x-team": "a"})
dspex.configure(lm=spare, config="dspex.toml", budget_usd=1.0)
dspex.configure(lm="local/smollm2")
dspex.configure(lm={"model": "openai/gpt-4o-mini", "temperature": 0.1})
dspex.configure(lm="cheap", lms={"cheap": "openai/gpt-4o-mini", "strong": spare})
pool = dspex.PoolConfig("dspy", size=2, memory_cap="2GiB", call_timeout="90s", affinity="hint", start_method="exec")
supervisor = dspex.Supervisor(pools=[pool, dspex.PoolConfig("mipro", restart_budget=(5, 30.0), env={"A": "b"})])
supervisor = dspex.Supervisor("dspex.toml", lm="cheap", lms={"cheap": spare})
open_pool = dspex.PoolConfig("dspy", lms="named")
with dspex.context(lm="cheap", adapter="json", lms={"cheap": lm}, config={"temperature": 0.3}):
    pass
assert_type(pool.memory_cap, int | None)

# -- programs: a class-style signature types what comes of it

qa = dspex.predictor("predict", QA, lm=lm, adapter="json", timeout=math.inf, config={"temperature": 0.5})
assert_type(qa, dspex.Program[QA])
assert_type(qa.using(lms={"self": "cheap"}), dspex.Program[QA])
out = qa(question="2+2?")
assert_type(out, dspex.Prediction[QA])
assert_type(out.typed.answer, str)
assert_type(out.typed.score, float)
assert_type(out.usage["model"]["prompt_tokens"], Any)
assert_type(out.answer, Any)
assert_type(dspex.chain_of_thought(Short, temperature=0.5)(question="?").typed.answer, str)
assert_type(dspex.predict(QA, {"question": "?"}, implementation="python", demos=[{"question": "a"}]).typed.score, float)
assert_type(dspex.predictor("predict", "question -> answer")(question="?"), dspex.Prediction[Any])
assert_type(dspex.predictor("mine:Careful", QA, rounds=2, lm="openai/gpt-4o-mini"), dspex.Program[QA])
assert_type(qa.using(timeout=3, idempotent=True, rollout_id=1, lm=None), dspex.Program[QA])
assert_type(qa.using(trace=True, history=100, callbacks=[dspex.BaseCallback()]), dspex.Program[QA])
assert_type(out.finish_reason, str)
assert_type([step.predictor for step in out.trace], list[str])
assert_type(qa.history[0].text, str)
assert_type(dspex.inspect_history(2), str)
assert_type(qa.render(question="?"), list[dict[str, Any]])

agent = dspex.react(QA, tools=[weather, dspex.Tool(weather)], max_iters=4, lm=lm)
assert_type(agent(question="?").typed.answer, str)
assert_type(dspex.best_of_n(qa, reward_fn=is_short, N=3, threshold=1.0, fail_count=2), dspex.Program[QA])
assert_type(dspex.refine(QA, reward_fn="exact_match", module="chain_of_thought"), dspex.Program[QA])
assert_type(dspex.majority(QA, n=3, field="answer", normalize=str.lower), dspex.Program[QA])
assert_type(dspex.assertions(QA, [says_what], attempts=2, on_failure="return"), dspex.Program[QA])
assert_type(dspex.rag(dspex.BM25Index(["a", "b"]), QA, k=2, query="question"), dspex.Program[QA])
assert_type(dspex.rag("dspy.ColBERTv2", "question -> answer", url="http://127.0.0.1:8893"), dspex.Program[Any])
assert_type(dspex.explain("best_of_n", QA, reward_fn=is_short, lm=lm), dspex.Decision)
print(dspex.signature(QA).output_fields, dspex.compile_signature(QA, "chat"))

for chunk in dspex.predict_stream(QA, {"question": "?"}, lm=lm):
    if isinstance(chunk, dspex.Chunk):
        print(chunk.field, chunk.text)
    else:
        assert_type(chunk.typed.answer, str)

for row in dspex.map(qa, [{"question": "a"}], max_in_flight=2):
    assert_type(row.result(), dspex.Prediction[QA])


async def awaited() -> None:
    assert_type((await qa.acall(question="?")).typed.answer, str)
    assert_type(await dspex.apredict(QA, {"question": "?"}, timeout=3.0), dspex.Prediction[QA])
    async for row in dspex.amap(qa, [{"question": "a"}]):
        assert_type(row.result().typed.score, float)
    async for part in dspex.apredict_stream(QA, {"question": "?"}):
        print(part)
    best = await dspex.aoptimize(qa, [{"question": "a"}], metric="f1", optimizer="gepa", auto="light")
    assert_type(best, dspex.Optimized[QA])


best = dspex.optimize(
    QA,
    [{"question": "a", "answer": "b"}],
    optimizer="miprov2",
    metric="exact_match",
    auto=None,
    num_candidates=2,
    seed=1,
)
assert_type(best(question="?").typed.answer, str)
assert_type(best.score, float | None)
job = dspex.optimize(QA, [{"question": "a"}], metric="f1", wait=False, budget={"usd": 2.0}, journal="job.jsonl")
assert_type(job, dspex.OptimizationJob[QA])
assert_type(job.partial, dspex.Optimized[QA] | None)
assert_type(job.result(timeout=3.0), dspex.Optimized[QA])
print(job.state == "running", job.progress.eta, [event.kind for event in job.events()])
best.save("qa.json")
assert_type(dspex.load("qa.json", program=qa, lm=lm), dspex.Optimized[QA])
assert_type(dspex.load("qa.json"), dspex.Optimized[Any])
dspex.evaluate(qa, [{"question": "a", "answer": "b"}], metric=lambda example, prediction: 1.0, num_threads=2)

# -- pipelines, supervisors, clients

flow = dspex.pipeline(
    [
        dspex.native(QA, lm=lm, timeout=3, when="question"),
        dspex.python("dspy.ChainOfThought", signature="answer -> summary", retry=1, lm=lm, adapter="json"),
        dspex.parallel([dspex.native(lambda answer: answer, into="copy")], max_in_flight=2),
        dspex.command("dspy", "ping", into="pong"),
    ]
)
assert_type(flow.run({"question": "a"}, timeout=3, lm=lm, budget_usd=1.0), dspex.Result)
assert_type(next(flow.map([{"question": "a"}], max_in_flight=2, timeout=3)).result(), dspex.Result)

with supervisor as running, FakeLM([{"answer": "4"}]) as fake:
    running.call("dspy", "ping", {"a": 1}, session="s", timeout=3, idempotent=True)
    with running.session("dspy", durable=True, budget_tokens=100) as session:
        session.call("ping")
    dspex.predict(QA, {"question": "?"}, lm=fake, supervisor=running)

with dspex.connect(name="default") as client:
    client.call("dspy", "ping", timeout=3)
    client.call("dspy", "run", {"spec": {}}, lm="default")
    dspex.predictor("predict", "question -> answer", supervisor=client)
    dspex.pipeline([dspex.python("dspy.Predict", signature="q -> a")]).run({"q": "x"}, supervisor=client)
    dspex.configure(supervisor=client)


async def scripted() -> None:
    async with FakeLM(by_field={"answer": ["4"]}, by_signature={"q -> a": "5"}, cycle=True, retries=0) as lm:
        await lm.await_for(lambda: len(lm.requests_for("answer")) == 1, timeout=3)
        print(lm.requests[0].inputs["question"], lm.requests[0].signature)


try:
    qa(question="?")
except dspex.CallTimeout as error:
    print(error.retryable)
except dspex.errors.DspexError:
    raise
