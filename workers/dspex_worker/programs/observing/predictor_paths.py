"""`PredictorPaths`: name the predictors of a running program, also those of the copies that it makes of itself."""

from __future__ import annotations

from typing import Any

import dspy


class PredictorPaths:
    """The predictors' names as DSPy has them ("self", "predict", "hop.predict"). Any thread.

    BestOfN, Refine and optimizers run deep copies, which keep the `stage` of the predictors that they are copies of. A
    predictor that the program makes while it runs has the name of its class.
    """

    def __init__(self, program: dspy.Module) -> None:
        self._by_id: dict[int, str] = {}
        self._by_stage: dict[str, str] = {}
        for name, predictor in program.named_predictors():
            self._by_id[id(predictor)] = name
            self._by_stage.setdefault(getattr(predictor, "stage", ""), name)

    def of(self, predictor: Any) -> str:
        """Return the name of a predictor; "" for what is none."""
        if not isinstance(predictor, dspy.Predict):
            return ""
        known = self._by_id.get(id(predictor)) or self._by_stage.get(getattr(predictor, "stage", ""))
        return known or type(predictor).__name__

    def running(self) -> str:
        """Return the name of the predictor that this thread or task asks an LM for; "" where it is none."""
        return self.of(asking())


def asking() -> Any:
    """Return the module that this thread or task asks an LM for; None outside of all."""
    return (dspy.settings.caller_modules or [None])[-1]
