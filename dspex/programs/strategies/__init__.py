"""Programs that ask another program, more than once or with more than their inputs.

Each is a `Program` like any other: called, awaited, streamed, mapped, put into pipelines. What repeats is decided by
a pure loop in the strategy's file; what is asked is the inner program's, on either route. Functions of the host's
(rewards, checks, retrievers) run in this process on both routes.
"""

from collections.abc import Callable, Mapping

from ...errors import SettingsError
from ..calling.program import Program
from .assertions import Assertions
from .best_of_n import BestOfN, Refine
from .ensemble import Ensemble
from .majority import Majority
from .rag import RetrievalAugmented


def _not_of_one(inner: Program, **options: object) -> Program:
    raise SettingsError("An ensemble is made of several programs: dspex.ensemble([...]).", key="programs")


STRATEGIES: Mapping[str, Callable[..., Program]] = {
    "dspy.BestOfN": BestOfN.over,
    "dspy.Refine": Refine.over,
    "dspy.majority": Majority.over,
    "dspex.Assertions": Assertions.over,
    "dspex.RAG": RetrievalAugmented.over,
    "dspex.Ensemble": _not_of_one,
}

__all__ = ["STRATEGIES", "Assertions", "BestOfN", "Ensemble", "Majority", "Refine", "RetrievalAugmented"]
