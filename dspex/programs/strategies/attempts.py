"""Drive loops that ask a program more than once: written once as a generator, driven by blocking or awaiting.

A loop yields an `Attempt`, is sent the prediction (or thrown the error) that came of it, and returns its result. The
loops know neither language models nor pools, so they work over native and worker predictors alike. Attempts differ in
their rollout id, so no cache answers twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...errors import InvalidInput
from ...signatures.field import InputField
from ...signatures.signature import Signature
from ...types.prediction import Prediction

Inputs = Mapping[str, Any]
Loop = Generator["Attempt", Prediction, Prediction]

HINT: Final = "hint_"
TEMPERATURE: Final = 1.0  # the temperature of DSPy's attempts (predict/best_of_n.py, predict/refine.py)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a loop: its number from 1, how to make it differ, and what was wrong with the one before.

    `rollout_id` and `temperature` are None for an attempt that may be answered as usual (and from a cache).
    """

    number: int
    rollout_id: int | None = None
    temperature: float | None = None
    feedback: tuple[str, ...] = ()


def drive(loop: Loop, ask: Callable[[Attempt], Prediction]) -> Prediction:
    """Run the loop to its end; blocks.

    Raises:
        Exception: what the loop lets through of what `ask` raises.
    """
    try:
        attempt = next(loop)
        while True:
            try:
                prediction = ask(attempt)
            except Exception as error:  # the loop decides whether it counts or ends
                attempt = loop.throw(error)
            else:
                attempt = loop.send(prediction)
    except StopIteration as end:
        return _made(end)


async def adrive(loop: Loop, ask: Callable[[Attempt], Awaitable[Prediction]]) -> Prediction:
    """`drive`, awaited."""
    try:
        attempt = next(loop)
        while True:
            try:
                prediction = await ask(attempt)
            except Exception as error:  # the loop decides whether it counts or ends
                attempt = loop.throw(error)
            else:
                attempt = loop.send(prediction)
    except StopIteration as end:
        return _made(end)


def require_attempts(attempts: int) -> None:
    """Require at least one attempt.

    Raises:
        InvalidInput: there are fewer.
    """
    if attempts < 1:
        raise InvalidInput(f"At least one attempt is needed, not {attempts}.", field="attempts")


def with_hint(sig: Signature) -> Signature:
    """Return the signature with the input `hint_` after the others, for an attempt with feedback; as DSPy's Refine."""
    return sig.derive("hinted", _hinted)


def _hinted(sig: Signature) -> Signature:
    return sig.append(HINT, InputField(desc="A hint to the module from an earlier run"), str)


def _made(end: StopIteration) -> Prediction:
    made: Prediction = end.value
    return made
