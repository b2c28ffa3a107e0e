"""What another library offers: nameless objects, whose home no attribute tells."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import dspy


class Mailer:
    """Sends mail; an instance is callable as a retriever is."""

    def send(self, example: Any, prediction: Any) -> float:
        raise AssertionError("sent")

    def __call__(self, query: str, k: int = 3) -> list[str]:
        raise AssertionError("sent")


class Agent(dspy.Module):
    """A module of the library's."""

    def forward(self, **inputs: Any) -> Any:
        raise AssertionError("ran")


def _handler() -> Callable[..., float]:
    def handle(*given: Any) -> float:
        raise AssertionError("handled")

    return handle


mailer = Mailer()
send = mailer.send
handler = _handler()
seeded = functools.partial(random.Random, 7)
