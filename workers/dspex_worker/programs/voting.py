"""`dspy.majority` as a module, so that a call can name it: asks, and gives the commonest of the answers."""

from __future__ import annotations

from typing import Any

import dspy


class MajorityModule(dspy.Module):  # type: ignore[misc]
    """The module's answers (as many as the LM is asked for by `n`), and DSPy's choice among them."""

    def __init__(self, module: dspy.Module, field: str | None = None) -> None:
        super().__init__()
        self.module = module
        self.field = field

    def forward(self, **inputs: Any) -> Any:
        return dspy.majority(self.module(**inputs), field=self.field)
