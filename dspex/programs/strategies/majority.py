"""The majority as a program: n answers to one question, and the commonest of them.

In a worker DSPy asks and counts (`dspy.majority`), unless what is compared is not text or is made by a function of the
host's, which DSPy's own cannot: then the answers come from the worker and are counted here, by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, UnknownName
from ..program import Program
from .attempts import Attempt, Loop
from .strategy import RepeatingStrategy
from .votes import Normalize, majority_of

if TYPE_CHECKING:
    from ...pools.call import Call
    from ...types.prediction import Prediction


@dataclass(frozen=True)
class Majority(RepeatingStrategy):
    """A program that takes the commonest of its answers; see `dspex.majority`."""

    n: int = 5
    field: str | None = None
    normalize: Normalize | None = None

    @classmethod
    def over(
        cls, inner: Program, *, n: int = 5, field: str | None = None, normalize: Normalize | None = None
    ) -> Majority:
        """The program over `inner`. Raises: InvalidInput, UnknownName for options that cannot be."""
        if n < 1:
            raise InvalidInput(f"At least one answer is needed, not {n}.", field="n")
        known = inner.answered.output_fields
        if field is not None and field not in known:
            raise UnknownName("output", field, known, where=repr(inner))
        return cls.made("dspy.majority", inner, n=n, field=field, normalize=normalize)

    def attempts(self, inputs: Mapping[str, Any]) -> Loop:
        prediction = yield Attempt(1)
        return majority_of(prediction, field=self._compared, normalize=self.normalize)

    @property
    def config_used(self) -> Mapping[str, Any]:
        return {**self.config, "n": self.n}

    @property
    def is_of_requests(self) -> bool:
        return self.normalize is None and self.inner.is_of_requests

    def to_wire(self) -> dict[str, Any]:
        inner = self.inner.to_wire()
        described = {key: inner[key] for key in ("module", "options", "state", "demos") if key in inner}
        outer: dict[str, Any] = {key: inner[key] for key in ("signature", "tools") if key in inner}
        return {
            **outer,
            "module": self.module,
            "options": {"module": described, "field": self._compared},
            "state": None,
        }

    def run_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, Call | None]:
        if self._is_counted_here:
            return super().run_in_worker(inputs, **how)
        return Program.run_in_worker(self, inputs, **how)

    async def arun_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, Call | None]:
        if self._is_counted_here:
            return await super().arun_in_worker(inputs, **how)
        return await Program.arun_in_worker(self, inputs, **how)

    @cached_property
    def _compared(self) -> str:
        return self.field or list(self.answered.output_fields)[-1]

    @property
    def _is_counted_here(self) -> bool:
        return self.normalize is not None or self.answered.output_fields[self._compared].annotation is not str
