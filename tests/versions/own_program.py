"""A module as a user writes one: several predictors, one with an LM of its own, awaited or not."""

from __future__ import annotations

import dspy


class MultiHop(dspy.Module):  # type: ignore[misc]
    """Asks for queries, then answers; `judge` names a second model."""

    def __init__(self, hops: int = 2, judge: str | None = None) -> None:
        super().__init__()
        self.hops = hops
        self.query = dspy.ChainOfThought("question, notes: list[str] -> query")
        self.answer = dspy.Predict("question, notes: list[str] -> answer")
        if judge is not None:
            self.answer.set_lm(dspy.LM(judge, temperature=0.0))

    def forward(self, question: str) -> dspy.Prediction:
        notes: list[str] = []
        for _ in range(self.hops):
            notes.append(self.query(question=question, notes=notes).query)
        return dspy.Prediction(answer=self.answer(question=question, notes=notes).answer, notes=notes)


class Awaited(MultiHop):
    """The same, with `aforward` alone."""

    forward = None

    async def aforward(self, question: str) -> dspy.Prediction:
        first = await self.query.acall(question=question, notes=[])
        said = await self.answer.acall(question=question, notes=[first.query])
        return dspy.Prediction(answer=said.answer, notes=[first.query])
