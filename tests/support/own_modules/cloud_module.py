"""A module of a user's that asks a deployment of Azure's, as it would without DSPex."""

from __future__ import annotations

from typing import Any

import dspy


class AsksAzure(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        lm = dspy.LM("azure/my-deployment", api_version="2024-06-01")
        with dspy.context(lm=lm):
            return self.answer(question=question)
