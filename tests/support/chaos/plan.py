"""A fault plan: what is called, and when which worker is killed, all of it drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

COMMANDS = ("echo", "effect", "raise_error", "count")
WEIGHTS = (6, 2, 1, 1)


@dataclass(frozen=True, slots=True)
class Planned:
    """One call of the plan; `token` is what it must give back, or leave in the effects file."""

    number: int
    command: str
    token: str
    idempotent: bool

    def arguments(self, effects: str) -> dict[str, Any]:
        match self.command:
            case "effect":
                return {"path": effects, "token": self.token}
            case "raise_error":
                return {"type": "ValueError", "message": self.token}
            case "count":
                return {"n": 3}
        return {"token": self.token}

    def is_answer(self, outcome: Any) -> bool:
        """Whether `outcome` (a value, or an error's text) is this call's own."""
        match self.command:
            case "effect":
                return outcome is None
            case "raise_error":
                return self.token in str(outcome)
            case "count":
                return bool(outcome == 3)
        return bool(outcome == {"token": self.token})


class Plan:
    """`calls` calls at least, and a kill before every `kill_every`-th."""

    def __init__(self, seed: int, calls: int, kill_every: int) -> None:
        self.seed = seed
        self.calls = calls
        self.kill_every = kill_every
        self._random = random.Random(seed)
        self._kinds = self._random.choices(COMMANDS, WEIGHTS, k=min(calls, 10_000))

    def call(self, number: int) -> Planned:
        command = self._kinds[number % len(self._kinds)]
        return Planned(number, command, f"t{number}", idempotent=number % 5 == 0)

    def kills_at(self, number: int) -> bool:
        return self.kill_every > 0 and number % self.kill_every == self.kill_every - 1

    def victim(self, pids: list[int]) -> int:
        """Which of the living is killed."""
        return self._random.choice(sorted(pids))
