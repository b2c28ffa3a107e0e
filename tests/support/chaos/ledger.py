"""The ledger of a chaos run: every call ends exactly once, with its own answer or an error that says what happened."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dspex.errors import DspexError, RemoteError, WorkerDied
from tests.support.chaos.plan import Plan, Planned


class Ledger:
    """What became of each call, and what was wrong."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ends = bytearray()  # how often each call that was made has ended
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.answered_effects = bytearray()

    def made(self, call: Planned) -> None:
        """The next call of the plan is made."""
        assert call.number == len(self.ends)
        self.ends.append(0)
        self.answered_effects.append(0)

    def answered(self, call: Planned, value: object) -> None:
        self._end(call, "answered")
        if not call.is_answer(value):
            self.wrong.append(f"{call} got {value!r:.80}")
        if call.command == "effect":
            self.answered_effects[call.number] = 1

    def failed(self, call: Planned, error: BaseException) -> None:
        if isinstance(error, RemoteError):
            self._end(call, "raised")
            if not call.is_answer(error.message):
                self.wrong.append(f"{call} got {error!r:.80}")
        elif isinstance(error, WorkerDied):
            self._end(call, "lost to a death")
        elif isinstance(error, DspexError):
            self._end(call, type(error).__name__)
            self.wrong.append(f"{call} got {error!r:.120}")
        else:
            raise error

    def check(self, effects: Path) -> None:
        """Compare with what really ran.

        Raises:
            AssertionError: a call did not end once, got what is not its own, or ran more often than it may.
        """
        assert not self.wrong, f"seed {self.plan.seed}: {len(self.wrong)} wrong, such as {self.wrong[:3]}"
        assert self.ends.count(1) == len(self.ends) >= self.plan.calls, (
            f"seed {self.plan.seed}: not every call ended exactly once"
        )
        ran = Counter(effects.read_text().split()) if effects.exists() else Counter()
        for number in range(len(self.ends)):
            call = self.plan.call(number)
            if call.command != "effect":
                continue
            most = 2 if call.idempotent else 1
            assert ran[call.token] <= most, f"seed {self.plan.seed}: {call} ran {ran[call.token]} times"
            if self.answered_effects[number]:
                assert ran[call.token] >= 1, f"seed {self.plan.seed}: {call} was answered and never ran"

    def _end(self, call: Planned, how: str) -> None:
        self.ends[call.number] += 1
        self.counts[how] += 1
