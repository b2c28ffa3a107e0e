"""Modules of a user's whose language models, or predictors, have options of the provider's own."""

from __future__ import annotations

from typing import Any

import dspy

MODEL = "openai/strong-model"


class OwnLM(dspy.Module):
    """Asks an LM that it makes, with these options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lm = dspy.LM(MODEL, **options)
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        with dspy.context(lm=self.lm):
            return self.answer(question=question)


class OwnPredictor(dspy.Module):
    """Asks the call's LM, by a predictor with these options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer", **options)

    def forward(self, question: str) -> dspy.Prediction:
        return self.answer(question=question)


class Surest(dspy.Module):
    """Gives what DSPy's `logprobs` say of the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer", logprobs=True)

    def forward(self, question: str) -> dspy.Prediction:
        made = self.answer(question=question)
        return dspy.Prediction(answer=made.answer, first=made.logprobs.content[0].token)
