"""A user's module that configures DSPy when it is imported, as scripts do."""

from __future__ import annotations

from typing import Any

import dspy

dspy.configure(lm=dspy.LM("openai/import-model"), adapter=dspy.JSONAdapter(), disable_history=False)


class Plain(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        return self.predict(question=question)
