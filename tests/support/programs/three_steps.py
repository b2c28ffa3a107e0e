"""A module of three predictors, as users write one."""

from __future__ import annotations

import dspy


class ThreeSteps(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.draft = dspy.Predict("question, plan -> draft")
        self.final = dspy.Predict("question, plan, draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        plan = self.plan(question=question).plan
        draft = self.draft(question=question, plan=plan).draft
        return self.final(question=question, plan=plan, draft=draft)
