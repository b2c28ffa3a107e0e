"""`SpreadMetric`: a metric that an optimizer's worker has scored by the workers of a pool, so that they share its work.

The optimizer's worker asks here, and the pool's next free worker answers. Only plain scores are spread: with a trace,
or GEPA's two, DSPy gives a metric objects of the optimizer's own process, and there it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError
from ...services.metric_limit import UNBOUNDED
from ...services.metrics import named_metric
from ..evaluation.evaluated_program import EvaluatedProgram
from ..evaluation.scorers import WorkerScorer, require_pool
from ..options.routing import OPTIMIZER_POOL

if TYPE_CHECKING:
    from ..calling.program import Program


class SpreadMetric:
    """A metric by import path, called in the workers of a pool; as a function of this process."""

    def __init__(self, metric: Any, student: Program[Any], pool: str) -> None:
        """Check what can be checked.

        Raises:
            SettingsError, UnknownName: the metric is no import path, or the pool cannot score by it.
        """
        supervisor = student.supervisor_used
        require_pool(pool, metric, supervisor)
        self._scorer = WorkerScorer(named_metric(metric), EvaluatedProgram(student), supervisor, pool, may_repeat=True)
        self.__name__ = self._scorer.name
        self.pool = pool
        self.at_once = _free_places(pool, supervisor)

    async def __call__(self, example: Any, prediction: Any) -> Mapping[str, Any]:
        score, feedback = await self._scorer.score(example, prediction, UNBOUNDED)  # whoever calls it bounds it
        return {"score": score} if feedback is None else {"score": score, "feedback": feedback}

    def require(self) -> None:
        """Check that the pool's workers find the metric.

        Raises:
            UnknownName, InvalidInput: they do not.
        """
        self._scorer.require((), self._scorer.subject)


def _free_places(pool: str, supervisor: Any) -> int:
    """Return how many scores at a time a pool gives, beside the job if it runs there.

    Raises:
        SettingsError: none.
    """
    config = supervisor.pool(pool).config
    places = int(supervisor.pool(pool).stats()["size"]) * int(config.concurrency) - (pool == OPTIMIZER_POOL)
    if places < 1:
        raise SettingsError(
            f"Pool {pool!r} has one worker, which the job itself takes: raise its size, or give another metric_pool.",
            key="metric_pool",
        )
    return places
