"""Better answers from one predictor: reasoning first, asking again with feedback, the best or commonest of n.

The functions take any callable that predicts (`Ask`), so they work over native and worker predictors alike, and know
neither language models nor pools. Each loop is written once, as a generator of attempts, and driven by a blocking and
an awaiting verb. Attempts differ in their rollout id, so no cache answers twice.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from dspex.errors import CheckFailed, InvalidInput
from dspex.inprocess.fields import InputField, OutputField
from dspex.inprocess.prediction import Prediction
from dspex.inprocess.signatures import Signature, SignatureLike, signature

Inputs = Mapping[str, Any]
Check = Callable[[Inputs, Prediction], "bool | str | None"]
Reward = Callable[[Inputs, Prediction], float]

HINT: Final = "hint_"
_HEAT: Final = 1.0
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a loop: its number from 1, how to make it differ, and what was wrong with the one before.

    `rollout_id` and `temperature` are None for an attempt that may be answered as usual (and from a cache).
    """

    number: int
    rollout_id: int | None = None
    temperature: float | None = None
    feedback: tuple[str, ...] = ()


Ask = Callable[[Inputs, Attempt], Prediction]
AAsk = Callable[[Inputs, Attempt], Awaitable[Prediction]]


def chain_of_thought(sig: SignatureLike) -> Signature:
    """The signature with a text output `reasoning` before the others, as `dspy.ChainOfThought` makes it."""
    known = sig if isinstance(sig, Signature) else signature(sig)
    return known.prepend("reasoning", OutputField(desc="${reasoning}"), str)


def with_hint(sig: Signature) -> Signature:
    """The signature with the input `hint_` after the others, for an attempt that has feedback."""
    return sig.append(HINT, InputField(desc="A hint to the module from an earlier run"), str)


def hinted(sig: Signature, inputs: Inputs, attempt: Attempt) -> tuple[Signature, Inputs]:
    """The signature and inputs of an attempt: unchanged without feedback, else with the feedback as a hint."""
    if not attempt.feedback:
        return sig, inputs
    return with_hint(sig), {**inputs, HINT: "\n".join(attempt.feedback)}


# --- refine -------------------------------------------------------------------------------------------------------


def refine(
    ask: Ask,
    inputs: Inputs,
    checks: Sequence[Check],
    *,
    attempts: int = 3,
    on_failure: Literal["raise", "return"] = "raise",
) -> Prediction:
    """The first prediction that passes all checks; each new attempt is told what was wrong with the last.

    A check gets the inputs and the prediction, and returns True or None when satisfied, else False or what is wrong.

    Raises: CheckFailed after `attempts`, unless on_failure is "return": then the prediction with the fewest failures.
    """
    loop = _refining(inputs, checks, attempts, on_failure)
    step = next(loop)
    while isinstance(step, Attempt):
        step = loop.send(ask(inputs, step))
    return step


async def arefine(
    ask: AAsk,
    inputs: Inputs,
    checks: Sequence[Check],
    *,
    attempts: int = 3,
    on_failure: Literal["raise", "return"] = "raise",
) -> Prediction:
    """`refine` for event loops; the checks are plain functions."""
    loop = _refining(inputs, checks, attempts, on_failure)
    step = next(loop)
    while isinstance(step, Attempt):
        step = loop.send(await ask(inputs, step))
    return step


def failures(checks: Iterable[Check], inputs: Inputs, prediction: Prediction) -> tuple[str, ...]:
    """What the checks object to; a check that only says False is called by its name."""
    found = []
    for check in checks:
        verdict = check(inputs, prediction)
        if verdict is False or (isinstance(verdict, str) and verdict):
            found.append(verdict or f"the check {getattr(check, '__name__', 'of this prediction')!r} failed")
    return tuple(found)


_Loop = Generator["Attempt | Prediction", Prediction, None]


def _refining(inputs: Inputs, checks: Sequence[Check], attempts: int, on_failure: str) -> _Loop:
    _require_attempts(attempts)
    best: tuple[int, Prediction] | None = None
    feedback: tuple[str, ...] = ()
    for number in range(1, attempts + 1):
        prediction = yield Attempt(number, rollout_id=number - 1 if number > 1 else None, feedback=feedback)
        feedback = failures(checks, inputs, prediction)
        if not feedback:
            yield prediction
            return
        if best is None or len(feedback) < best[0]:
            best = (len(feedback), prediction)
    if on_failure == "raise" or best is None:
        raise CheckFailed(feedback, attempts=attempts, prediction=prediction)
    yield best[1]


# --- best of n ----------------------------------------------------------------------------------------------------


def best_of_n(
    ask: Ask,
    inputs: Inputs,
    reward: Reward,
    *,
    n: int = 3,
    threshold: float | None = None,
    max_errors: int | None = None,
) -> Prediction:
    """The prediction with the highest reward of n attempts; the first one of at least `threshold` ends them.

    Every attempt is made at temperature 1.0 with a rollout id of its own, as in `dspy.BestOfN`. Attempts or rewards
    that raise count as none; after more than `max_errors` of them (default: n - 1) the last error is raised.
    """
    loop = _choosing(inputs, reward, n, threshold, max_errors)
    step = next(loop)
    while isinstance(step, Attempt):
        try:
            prediction = ask(inputs, step)
        except Exception as error:
            step = loop.throw(error)
        else:
            step = loop.send(prediction)
    return step


async def abest_of_n(
    ask: AAsk,
    inputs: Inputs,
    reward: Reward,
    *,
    n: int = 3,
    threshold: float | None = None,
    max_errors: int | None = None,
) -> Prediction:
    """`best_of_n` for event loops; the reward is a plain function."""
    loop = _choosing(inputs, reward, n, threshold, max_errors)
    step = next(loop)
    while isinstance(step, Attempt):
        try:
            prediction = await ask(inputs, step)
        except Exception as error:
            step = loop.throw(error)
        else:
            step = loop.send(prediction)
    return step


def _choosing(inputs: Inputs, reward: Reward, n: int, threshold: float | None, max_errors: int | None) -> _Loop:
    _require_attempts(n)
    allowed = n - 1 if max_errors is None else max_errors
    best: tuple[float, Prediction] | None = None
    errors = 0
    for number in range(1, n + 1):
        try:
            prediction = yield Attempt(number, rollout_id=number - 1, temperature=_HEAT)
            value = reward(inputs, prediction)
        except Exception:
            errors += 1
            if errors > allowed:
                raise
            continue
        if best is None or value > best[0]:
            best = (value, prediction)
        if threshold is not None and value >= threshold:
            break
    if best is None:
        raise CheckFailed(("no attempt gave a prediction",), attempts=n, prediction=None)
    yield best[1]


def _require_attempts(attempts: int) -> None:
    if attempts < 1:
        raise InvalidInput(f"At least one attempt is needed, not {attempts}.", field="attempts")


# --- majority -----------------------------------------------------------------------------------------------------


def majority(
    predictions: Prediction | Sequence[Prediction | Mapping[str, Any]],
    *,
    field: str | None = None,
    normalize: Callable[[Any], Hashable | None] | None = None,
) -> Prediction:
    """The first of the completions whose `field` (default: the last output) has the commonest value.

    Values are compared by `normalize` (default: lower case without accents' composition, punctuation and English
    articles, as in `dspy.majority`); values that it makes None do not vote, unless all are. The earlier wins a tie.
    """
    candidates = list(predictions.completions if isinstance(predictions, Prediction) else predictions)
    if not candidates:
        raise InvalidInput("A majority needs at least one prediction.", field="predictions")
    name = field or list(candidates[0].keys())[-1]
    votes = [(normalize or normalized)(candidate[name]) for candidate in candidates]
    counts: dict[Hashable, int] = {}
    for vote in [vote for vote in votes if vote is not None] or votes:
        counts[vote] = counts.get(vote, 0) + 1
    winner = max(counts, key=lambda vote: counts[vote])  # the first of equals, as dicts keep their order
    chosen = candidates[votes.index(winner)]
    return chosen if isinstance(chosen, Prediction) else _alone(predictions, chosen)


def normalized(value: Any) -> str | None:
    """The text as `dspy.majority` compares it; None for nothing."""
    text = unicodedata.normalize("NFD", str(value)).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split()) or None


def _alone(source: Any, values: Mapping[str, Any]) -> Prediction:
    if isinstance(source, Prediction):
        return Prediction(
            values, usage=source.usage, cached=source.cached, cost_usd=source.cost_usd, route=source.route
        )
    return Prediction(values)
