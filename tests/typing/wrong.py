"""Mistakes that type checkers must find: each marked line is an error, and no other is. Never run."""

from __future__ import annotations

from typing import Any

import dspex
from dspex.testing import FakeLM


class QA(dspex.Signature):
    """Answer the question."""

    question: str = dspex.InputField()
    answer: str = dspex.OutputField()


def reward(inputs: dict[str, Any], prediction: dspex.Prediction) -> float:
    return 1.0


rows = [{"question": "a", "answer": "b"}]
qa = dspex.predictor("predict", QA)

dspex.predicct(QA, {"question": "?"})  # wrong
dspex.LM("openai/gpt-4o-mini", temprature=0.1)  # wrong
dspex.LM("openai/gpt-4o-mini", timeout="3s")  # wrong
dspex.LM("openai/gpt-4o-mini").replace(sed=3)  # wrong
dspex.LM(5)  # wrong
dspex.PoolConfig("dspy", sise=3)  # wrong
dspex.PoolConfig("dspy", affinity="sticky")  # wrong
dspex.PoolConfig("dspy", start_method="spawn")  # wrong
dspex.Supervisor(pool=[dspex.PoolConfig("dspy")])  # wrong
dspex.PoolConfig("dspy", lms="all")  # wrong
dspex.configure(budget="1 USD")  # wrong
dspex.configure(lms=["cheap"])  # wrong
dspex.context(adapter="yaml")  # wrong
qa.using(lms={"self": 3})  # wrong
dspex.predict(QA, {"question": "?"}, tmeout=3)  # wrong
dspex.predict(QA, {"question": "?"}, timeout="3s")  # wrong
dspex.predict(QA, {"question": "?"}, adapter="jsn")  # wrong
dspex.predict(QA, {"question": "?"}, implementation="pyton")  # wrong
dspex.predict(QA, {"question": "?"}, demos=5)  # wrong
dspex.predict(5, {"question": "?"})  # wrong
dspex.predict_stream(QA, {"question": "?"}, lmm="openai/gpt-4o-mini")  # wrong
dspex.predictor("predict", QA, timeout="3s")  # wrong
dspex.predictor("predict", QA, implementation="pyton")  # wrong
dspex.predictor("predict", QA, supervisor="dspex.toml")  # wrong
dspex.chain_of_thought(QA, temperatur=0.5)  # wrong
dspex.react(QA, tools=[reward], max_iterz=3)  # wrong
dspex.best_of_n(QA, reward_fn=reward, n=3)  # wrong
dspex.refine(QA, reward=reward)  # wrong
dspex.majority(QA, N=3)  # wrong
dspex.assertions(QA, [lambda inputs, out: True], on_failure="ignore")  # wrong
dspex.rag(reward, QA, top_k=3)  # wrong
dspex.explain("predict", QA, implementation="pyton")  # wrong
dspex.optimize(QA, rows, optimizer="mipro2")  # wrong
dspex.optimize(QA, rows, num_candidate=2)  # wrong
print(dspex.optimize(QA, rows, wait=False).score)  # wrong
dspex.optimize(QA, rows, budget={"dollars": 2.0})  # wrong
dspex.evaluate(qa, rows, metrik="f1")  # wrong
dspex.load("qa.json", programm=qa)  # wrong
dspex.map(qa, rows, max_inflight=3)  # wrong
dspex.connect(nam="default")  # wrong
dspex.connect().call("dspy", "run", {}, lm=5)  # wrong
FakeLM(by_feild={"answer": "x"})  # wrong
FakeLM(cycle="yes")  # wrong
FakeLM("x", temprature=0.5)  # wrong
qa.using(timeot=3)  # wrong
qa.using(idempotent="yes")  # wrong
qa.using(trace="yes")  # wrong
qa.using(callback=[])  # wrong
dspex.configure(histry=True)  # wrong
print(qa.history[0].txt)  # wrong
print(qa(question="?").typed.anwser)  # wrong
print(qa(question="?").typed.answer + 1)  # wrong
dspex.parallel([qa], max_inflight=3)  # wrong
dspex.native(qa, timeout="3s")  # wrong
dspex.python("dspy.Predict", signature="a -> b", adapter="jsn")  # wrong
dspex.pipeline([qa]).run({"question": "?"}, tmeout=3)  # wrong
dspex.pipeline([qa]).map([{"question": "?"}], tmeout=3)  # wrong


async def awaited() -> None:
    await dspex.apredict(QA, {"question": "?"}, tmeout=3)  # wrong
    await dspex.aoptimize(QA, rows, optimizr="gepa")  # wrong
    dspex.amap(reward, rows)  # wrong
