"""`best_of_n` and `refine`: the best of several answers by a reward (DSPy's BestOfN and Refine).

Every attempt is made at temperature 1.0 under a rollout id of its own. An attempt or a reward that raises counts as a
failure by DSPy's rule: failure number i (from 0, among the attempts) is raised when i is over what is left of
`fail_count`, which is the number of attempts unless given, and loses one with each failure.

In a worker the module is DSPy's own, and calls the reward back here. Natively the attempts are the same requests; but
Refine's advice is not: DSPy has a model write it from the source code of the module and of the reward, so "auto" takes
Refine to a worker, and the native form, whose advice is what the reward says, is a choice.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from dspex_worker.user_calls import Mismatch, require_result, score_in

from ...errors import CallTimeout, CheckFailed, InvalidInput, RemoteError, SettingsError
from ...services.metric_job import MetricJob
from ...types.example import Example
from ...types.prediction import Prediction
from ..calling.program import Program
from ..options.routing import Candidate, Reason
from .attempts import TEMPERATURE, Attempt, Inputs, Loop, require_attempts
from .strategy import Strategy, require_function

if TYPE_CHECKING:
    from ...lm.record import LM
    from ...pools.supervising import MadeCall
    from ...services.services import Services


Reward = Callable[[Inputs, Prediction], Any]
_KEPT = 16  # errors of the reward that may yet come back from a worker


@dataclass(frozen=True)
class BestOfN(Strategy):
    """A program that takes its best answer; see `dspex.best_of_n`."""

    gives_feedback: ClassVar[bool] = False

    reward_fn: Any = None  # a function of the host's, or what names one to a worker
    N: int = 3
    threshold: float | None = None
    fail_count: int | None = None
    raised: deque[Exception] = field(default_factory=lambda: deque(maxlen=_KEPT), compare=False, repr=False)

    @classmethod
    def over(
        cls,
        inner: Program,
        *,
        reward_fn: Any = None,
        N: int = 3,
        threshold: float | None = None,
        fail_count: int | None = None,
    ) -> BestOfN:
        """Return the program over `inner`.

        Raises:
            SettingsError, InvalidInput: options that cannot be.
        """
        if N < 1:
            raise InvalidInput(f"At least one attempt is needed, not {N}.", field="N")
        if isinstance(reward_fn, str):
            reward_fn = {"import" if ":" in reward_fn else "name": reward_fn}
        if not callable(reward_fn) and not isinstance(reward_fn, Mapping):
            raise SettingsError(
                "A reward is needed: reward_fn=function (inputs, prediction) -> number, or the name or import path "
                "'module:function' of one that workers hold.",
                key="reward_fn",
            )
        if callable(reward_fn):
            require_function(reward_fn, "reward_fn", "reward", "inputs", "prediction")
        return cls.made(cls.dspy_module(), inner, reward_fn=reward_fn, N=N, threshold=threshold, fail_count=fail_count)

    @classmethod
    def dspy_module(cls) -> str:
        return "dspy.BestOfN"

    def attempts(self, inputs: Mapping[str, Any]) -> Loop:
        return choosing(
            inputs,
            self.reward_fn,
            attempts=self.N,
            threshold=self.threshold,
            fail_count=self.fail_count,
            first_rollout=self.first_rollout,
            gives_feedback=self.gives_feedback,
        )

    def candidate(self, lm: LM | None) -> Candidate:
        inner = super().candidate(lm)
        return inner if callable(self.reward_fn) else replace(inner, obstacle=(Reason.REWARD, ""))

    @property
    def is_of_requests(self) -> bool:
        is_built_in = isinstance(self.reward_fn, Mapping) and "name" in self.reward_fn
        return is_built_in and self.inner.is_of_requests

    def to_wire(self) -> dict[str, Any]:
        options = {
            "N": self.N,
            "threshold": self._threshold_sent(),
            "fail_count": self.fail_count,
            "reward_fn": self._reward_sent(),
        }
        return self.inner_wire(self.module, options)

    def run_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        with self._rewards_errors():
            return super().run_in_worker(inputs, **how)

    async def arun_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        with self._rewards_errors():
            return await super().arun_in_worker(inputs, **how)

    @contextlib.contextmanager
    def registered(self, services: Services) -> Generator[None]:
        """Register the tools, and the reward, which gets values of the signature's types as it does natively."""
        with super().registered(services):
            if not callable(self.reward_fn):
                yield
                return
            packages = self.inner.packages if self.inner.is_open else ()
            job = MetricJob(typed=self.inner.typed, packages=packages, is_reward=True)
            with services.metrics.registered(self.tool_set, self._rewarded, job):
                yield

    def _rewarded(self, example: Example, prediction: Prediction) -> Any:
        inputs = replace(self.inner, allow_markers=True).checked(example.to_dict())
        try:
            return score_of(self.reward_fn(inputs, prediction))
        except Exception as error:  # a reward may raise anything; noted, and raised
            self.raised.append(error)
            raise

    @contextlib.contextmanager
    def _rewards_errors(self) -> Generator[None]:
        """Raise the reward's own error in place of the worker's error about it."""
        try:
            yield
        except RemoteError as remote:
            if remote.type == "NoPrediction":
                raise CheckFailed(("no attempt had a reward",), attempts=self.N, prediction=None) from remote
            for error in reversed(self.raised):
                if remote.type.rpartition(".")[2] == type(error).__name__ and str(error) in str(remote):
                    raise error from remote
            raise

    def _reward_sent(self) -> dict[str, Any]:
        if not callable(self.reward_fn):
            return dict(self.reward_fn)
        source = _source_of(self.reward_fn)
        return {"parent": self.tool_set, **({"source": source} if source else {})}

    def _threshold_sent(self) -> float | None:
        # DSPy's BestOfN compares with the threshold whether there is one or not; nothing reaches this one.
        return float("inf") if self.threshold is None else self.threshold


@dataclass(frozen=True)
class Refine(BestOfN):
    """A program that asks again with advice; see `dspex.refine`."""

    gives_feedback: ClassVar[bool] = True

    @classmethod
    def dspy_module(cls) -> str:
        return "dspy.Refine"

    def candidate(self, lm: LM | None) -> Candidate:
        return replace(super().candidate(lm), preference=(Reason.FEEDBACK, ""))

    def _threshold_sent(self) -> float | None:
        return self.threshold


def _source_of(function: Callable[..., Any]) -> str | None:
    """Return the function's source, which DSPy's Refine shows to the model; of an object, its class's."""
    for what in (function, type(function)):
        try:
            return inspect.getsource(what)
        except (TypeError, OSError):
            continue
    return None


def choosing(
    inputs: Inputs,
    reward: Reward,
    *,
    attempts: int,
    threshold: float | None = None,
    fail_count: int | None = None,
    first_rollout: int = 0,
    gives_feedback: bool = False,
) -> Loop:
    """Return a loop that ends with the highest reward, or the first of at least `threshold`; the earlier wins a tie.

    With `gives_feedback` each attempt after one with too low a reward gets feedback: by the feedback that the reward
    gives (as `{"score": 0.2, "feedback": "..."}` or an object with both), else by the score.

    Raises:
        Exception: the last error, when it is one too many, or when no attempt has a reward.
        CheckFailed: there is neither a reward nor an error.
    """
    require_attempts(attempts)
    left = fail_count or attempts
    best: Prediction | None = None
    highest, last = -math.inf, None
    feedback: tuple[str, ...] = ()
    for index in range(attempts):
        try:
            prediction = yield Attempt(
                index + 1, rollout_id=first_rollout + index, temperature=TEMPERATURE, feedback=feedback
            )
            given = reward(inputs, prediction)
            score = score_of(given)
            if score > highest:
                highest, best = score, prediction
            if threshold is not None and score >= threshold:
                break
            feedback = (_feedback(given, score, threshold),) if gives_feedback else ()
        except (CallTimeout, NoReward):  # of the whole, not of an attempt
            raise
        except Exception as error:  # the reward or the program's; `fail_count` says how many may be
            last = error
            if index > left:
                raise
            left -= 1
    if best is not None:
        return best
    raise last or CheckFailed(("no attempt had a reward",), attempts=attempts, prediction=None)


class NoReward(SettingsError):
    """A reward that is a coroutine or the like: no attempt can have one."""


def score_of(given: Any) -> float:
    """Return a reward as a number: a number, a bool, or what holds one as `score`.

    Raises:
        InvalidInput: it is anything else.
        NoReward: it is a coroutine or a generator.
    """
    try:
        require_result(given, "reward")
    except Mismatch as error:
        raise NoReward(str(error), key="reward_fn") from error
    try:
        return float(score_in(given, "reward", may_be_odd=True))
    except Mismatch as error:
        raise InvalidInput(str(error), field="reward_fn") from error


def _feedback(given: Any, score: float, threshold: float | None) -> str:
    said = given.get("feedback") if isinstance(given, Mapping) else getattr(given, "feedback", None)
    if said:
        return str(said)
    wanted = "a higher one" if threshold is None else f"at least {threshold:g}"
    return f"An earlier answer was scored {score:g}; {wanted} is wanted."
