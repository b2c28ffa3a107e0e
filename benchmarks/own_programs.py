"""Programs of a user's own, for the benchmark of modules; they know only DSPy."""

from __future__ import annotations

import dspy

MEGABYTE = 2**20


class Chain(dspy.Module):
    """As many predictors, one after the other; each asks with the answer of the one before."""

    def __init__(self, predictors: int = 1) -> None:
        super().__init__()
        self.steps = [dspy.Predict("question -> answer") for _ in range(predictors)]

    def forward(self, question: str) -> dspy.Prediction:
        for step in self.steps:
            question = step(question=question).answer
        return dspy.Prediction(answer=question)


class AwaitedChain(Chain):
    """The same for DSPy's `acall`."""

    async def aforward(self, question: str) -> dspy.Prediction:
        for step in self.steps:
            question = (await step.acall(question=question)).answer
        return dspy.Prediction(answer=question)


class Holding(Chain):
    """One predictor beside 100 MB of documents, in 100,000 strings."""

    def __init__(self, megabytes: int = 100) -> None:
        super().__init__(1)
        size = 1024
        self.documents = {at: str(at).ljust(size) for at in range(megabytes * MEGABYTE // size)}


class AwaitedHolding(Holding):
    """The same for DSPy's `acall`."""

    aforward = AwaitedChain.aforward
