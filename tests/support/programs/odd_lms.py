"""Odder ways in which user code treats its language models, each a function of a question."""

from __future__ import annotations

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
from dspy.utils import DummyLM
from dspy.utils.callback import BaseCallback

SIG = "question -> answer"


class _Seeing(BaseCallback):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.seen.append(instance.model)


def callbacks(question: str) -> Any:
    seeing = _Seeing()
    answer = dspy.Predict(SIG)(question=question, lm=dspy.LM("cheap", callbacks=[seeing])).answer
    return [answer, *seeing.seen]


def two_step(question: str) -> Any:
    with dspy.context(adapter=dspy.TwoStepAdapter(dspy.LM("openai/cheap-model"))):
        return dspy.Predict(SIG)(question=question).answer


def best_of_two(question: str) -> Any:
    best = dspy.BestOfN(dspy.Predict(SIG), N=2, reward_fn=lambda arguments, prediction: 0.0, threshold=1.0)
    with dspy.context(lm=dspy.LM("cheap")):
        return best(question=question).answer


def usage(question: str) -> Any:
    with dspy.track_usage() as tracker:
        dspy.Predict(SIG)(question=question, lm=dspy.LM("cheap"))
    return [name for name, used in tracker.get_total_tokens().items() if used["total_tokens"]]


def dummy(question: str) -> Any:
    return dspy.Predict(SIG)(question=question, lm=DummyLM([{"answer": "cheap"}])).answer


def copies(question: str) -> Any:
    lm = dspy.LM("cheap")
    lm("before")
    several = (pickle.loads(pickle.dumps(lm)), copy.deepcopy(lm), copy.copy(lm), lm.copy(temperature=0.1))
    return [each(f"{question} {number}")[0] for number, each in enumerate(several)]


def several(question: str) -> Any:
    lm = dspy.LM("cheap", n=2)
    return [*lm(question), *[each.answer for each in dspy.Predict(SIG, n=3)(question=question, lm=lm).completions]]


def mapped(question: str) -> Any:
    with dspy.context(lm=dspy.LM("cheap")), ThreadPoolExecutor(4) as executor:
        return [each.answer for each in executor.map(lambda number: dspy.Predict(SIG)(question=str(number)), range(4))]


async def asyncified(question: str) -> Any:
    with dspy.context(lm=dspy.LM("cheap")):
        asked = [dspy.asyncify(dspy.Predict(SIG))(question=f"{question} {number}") for number in range(3)]
        return [each.answer for each in await asyncio.gather(*asked)]


async def streamified(question: str) -> Any:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    streaming = dspy.streamify(dspy.Predict(SIG), stream_listeners=[listener])
    with dspy.context(lm=dspy.LM("cheap")):
        return [chunk.answer async for chunk in streaming(question=question) if isinstance(chunk, dspy.Prediction)]


def slowly(question: str) -> Any:
    return dspy.LM("slow", num_retries=0)(question)


ODD_WAYS = (callbacks, two_step, best_of_two, usage, dummy, copies, several, mapped, asyncified, streamified)
