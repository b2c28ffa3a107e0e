"""Runs in a subprocess: a module of three predictors, by DSPy itself, under each adapter.

    python -m tests.support.lm.dspy_modules

stdin: JSON {"lm": {...}, "adapters": [name], "streamed": bool}; stdout: one JSON list of the modules' outputs.
"""

from __future__ import annotations

import asyncio
import datetime
import enum
import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import dspy
import pydantic
from dspy.adapters.baml_adapter import BAMLAdapter

ADAPTERS = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": dspy.XMLAdapter,
    "baml": BAMLAdapter,
}


class Mood(enum.Enum):
    CALM = "calm"
    ANGRY = "angry"


class Place(pydantic.BaseModel):
    name: str
    tags: list[str]


class Judge(dspy.Signature):
    """Judge an answer."""

    answer: str = dspy.InputField()
    mood: Mood = dspy.OutputField()
    place: Place = dspy.OutputField()
    day: datetime.date = dspy.OutputField()
    score: float = dspy.OutputField()
    sure: bool = dspy.OutputField()


class MultiHop(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.Predict("question -> query")
        self.next = dspy.ChainOfThought("question, notes: list[str] -> query, done: bool")
        self.answer = dspy.Predict("question, notes: list[str] -> answer")
        self.judge = dspy.Predict(Judge)

    def forward(self, question: str) -> dspy.Prediction:
        queries = [self.first(question=question).query]
        done = False
        while not done:
            hop = self.next(question=question, notes=queries)
            queries.append(hop.query)
            done = hop.done
        answer = self.answer(question=question, notes=queries).answer
        judged = self.judge(answer=answer)
        return dspy.Prediction(queries=queries, answer=answer, judged=judged)


def plain(out: dspy.Prediction) -> dict[str, Any]:
    judged = out.judged
    values = [judged.mood.value, judged.place.model_dump(), judged.day.isoformat(), judged.score, judged.sure]
    return {"queries": out.queries, "answer": out.answer, "judged": values}


async def streamed(program: dspy.Module) -> dict[str, Any]:
    listeners = [dspy.streaming.StreamListener(signature_field_name="answer")]
    run = dspy.streamify(program, stream_listeners=listeners)
    chunks = [item async for item in run(question="Which river?")]
    text = "".join(item.chunk for item in chunks if isinstance(item, dspy.streaming.StreamResponse))
    return {**plain(chunks[-1]), "streamed": text}


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    case = json.load(sys.stdin)
    results = []
    for name in case["adapters"]:
        with dspy.context(lm=dspy.LM(cache=False, num_retries=0, **case["lm"]), adapter=ADAPTERS[name]()):
            made = MultiHop()
            results.append(asyncio.run(streamed(made)) if case["streamed"] else plain(made(question="Which river?")))
    json.dump(results, out)
    out.flush()


if __name__ == "__main__":
    main()
