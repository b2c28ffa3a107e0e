"""A PoolState with its workers ready, and short ways to say what happens to it and to read its instructions."""

from __future__ import annotations

from random import Random

from dspex.pools.state.instructions import Emit, EndReason, Fail, Instruction, Send
from dspex.pools.state.machine import PoolState, Rules
from dspex.pools.state.records import CallRecord, SessionUse, WorkerPhase

NOW = 1000.0


class Pool:
    """A PoolState with its workers ready, and short ways to say what happens."""

    def __init__(self, *, is_ready: bool = True, **rules: object) -> None:
        settings = {"size": 1, "concurrency": 1, "recycle_after_age": None} | rules
        self.state = PoolState(Rules(**settings), random=Random(1))  # type: ignore[arg-type]
        self.ids = 0
        self.started = self.state.start(NOW)
        if is_ready:
            self.make_ready()

    def rules(self, **changed: object) -> Rules:
        """Rules like those that the pool began with, but for these."""
        return Rules(**{"size": 1, "concurrency": 1, "recycle_after_age": None} | changed)  # type: ignore[arg-type]

    def make_ready(self, now: float = NOW) -> list[Instruction]:
        starting = [w.generation for w in self.state.workers.values() if w.phase is WorkerPhase.STARTING]
        return [i for generation in starting for i in self.state.worker_ready(generation, now)]

    def new_call(self, session: str | None = None, use: SessionUse = None, **more: object) -> CallRecord:
        self.ids += 1
        packed = more.pop("packed", bytes([self.ids]))
        return CallRecord(self.ids, "run", session=session, use=use, packed=packed, **more)  # type: ignore[arg-type]

    def submit(
        self, session: str | None = None, use: SessionUse = None, now: float = NOW, **more: object
    ) -> tuple[CallRecord, list[Instruction]]:
        call = self.new_call(session, use, **more)
        return call, self.state.submit(call, now)

    def call(self, session: str | None = None, use: SessionUse = None, now: float = NOW, **more: object) -> CallRecord:
        """Submit, and expect it to be sent."""
        call, instructions = self.submit(session, use, now, **more)
        assert sent(instructions) == [call]
        return call

    def stateful(self, key: str = "s", now: float = NOW) -> CallRecord:
        """Let a session hold state."""
        call = self.call(key, "write", now)
        self.state.finished(call, now, held=True)
        return call


def sent(instructions: list[Instruction]) -> list[CallRecord]:
    return [i.call for i in instructions if isinstance(i, Send)]


def failed(instructions: list[Instruction]) -> list[tuple[CallRecord, EndReason]]:
    return [(i.call, i.why) for i in instructions if isinstance(i, Fail)]


def facts_of(instructions: list[Instruction]) -> dict[str, object]:
    return next(i.facts for i in instructions if isinstance(i, Fail))


def of_kind(instructions: list[Instruction], kind: type) -> list[Instruction]:
    return [i for i in instructions if isinstance(i, kind)]


def events(instructions: list[Instruction]) -> list[str]:
    return [i.event for i in instructions if isinstance(i, Emit)]
