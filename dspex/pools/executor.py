"""Hold the data that the pool lock guards, and execute instructions under it.

References only are moved here (C3): frames are put into outboxes and outcomes into calls. What blocks or calls out
is left to the engine: see `deferred`.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any

from dspex_worker.wire import messages
from dspex_worker.wire.messages import Kind

from ..config import PoolConfig
from ..errors import PoolClosed, ProtocolError, WorkerBootError
from . import call_errors
from .call import Call, next_id
from .call_tally import OK, CallTally, outcome_of
from .deferred import Deferred
from .durable_sessions import DurableSessions
from .processes.channel import Channel
from .state.instructions import Cancel, DropSession, Emit, EndReason, Fail, Instruction, Kill, Send, Start, Stop
from .state.machine import PoolState, Rules
from .worker import Worker

NO_NOTES: dict[str, Any] = {}
COUNTS = ("submitted", "answered", "failed", "expired", "cancelled", "deaths", "stops")
ENDS = ("worker.died", "worker.stopped")


class Executor:
    """The calls, workers and state of one pool. Every method is called with the pool's lock held."""

    def __init__(self, config: PoolConfig, deferred: Deferred) -> None:
        self.name = config.name
        self.config = config
        self.state = PoolState(rules_of(config))
        self.workers: dict[int, Worker] = {}
        self.live: dict[int, Call] = {}  # every call that is queued, or that a worker has not answered yet
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self.durable = DurableSessions()
        self.boot_error: WorkerBootError | None = None
        self.broken: BaseException | None = None
        self.tally: CallTally | None = None  # once somebody asks for it
        self.deferred = deferred

    def carry_out(self, instructions: Iterable[Instruction], channels: list[Channel], own: Call | None = None) -> None:
        """Execute instructions: move references; what blocks or calls out is left to the engine."""
        for instruction in instructions:
            kind = type(instruction)
            if kind is Send:
                self._send(instruction, channels)  # type: ignore[arg-type]
            elif kind is Fail:
                self._fail(instruction, own)  # type: ignore[arg-type]
            elif kind is Emit:
                self.deferred.instructions.append(self._with_worker(instruction))  # type: ignore[arg-type]
            elif kind is Start or kind is Kill:
                self.deferred.instructions.append(instruction)
            else:
                self._send_control(instruction, channels)  # type: ignore[arg-type]

    def require_room(self, worker: Worker, answers: list[messages.Message]) -> None:
        """Check what sessions wrote before any of it is taken.

        Raises:
            Malformed: a session would hold more than it may.
        """
        for _, id, _, notes in answers:
            if notes and "wrote" in notes and (call := worker.calls.get(id)) is not None:
                record = call.record
                if record is not None and record.is_durable:
                    self.durable.require_room(record.key, notes)

    def take_answers(
        self,
        worker: Worker,
        answers: list[messages.Message],
        taken: list[Call],
        ended: list[Call],
        channels: list[Channel],
    ) -> None:
        """Apply the answers to `taken`, and end the calls in `ended`, those that somebody waits for."""
        now = monotonic()
        for kind, id, body, notes in answers:
            call = worker.calls.pop(id, None)
            if call is None:
                continue
            taken.append(call)
            del self.live[id]
            notes = notes or NO_NOTES
            record = call.record
            if record is not None and record.is_durable and "wrote" in notes:
                self.durable.apply(record.key, notes)
            if not call.is_ended:
                self.take_answer(call, kind, body, worker)
                ended.append(call)
            self.carry_out(self.state.finished(call, now, held=notes.get("held"), retire=notes.get("retire")), channels)

    def end_halfway(self, taken: list[Call], ended: list[Call]) -> None:
        """End these calls after an interruption; those in `ended` were to be woken."""
        for call in taken:
            self.live.pop(call.id, None)
            if call.end(error=ProtocolError(f"The answer to {call.command!r} could not be taken.")):
                self.note_end(call)
                ended.append(call)
        self.deferred.ended.extend(ended)

    def take_answer(self, call: Call, kind: int, body: Any, worker: Worker) -> None:
        """End the call with what its worker answered."""
        if kind != Kind.ERROR:
            self.counts["answered"] += 1
            call.end(body)
        else:
            self.counts["failed"] += 1
            call.end(error=call_errors.error_from_reply(body, call, self.name, worker))
        self.note_end(call)

    def note_end(self, call: Call, *, is_given_up: bool = False) -> None:
        """Tell whoever tallies or traces calls that one has just ended."""
        if self.tally is not None or call.span is not None:
            outcome = outcome_of(call, is_given_up=is_given_up)
            if self.tally is not None:
                self.tally.end(call, outcome, monotonic())
            if call.span is not None:
                call.span.end("" if outcome == OK else outcome, call.sent_at, call.worker_name)

    def is_durable(self, session: str) -> bool:
        """Return whether replies in the session must report what they wrote (S9); any thread, without the lock."""
        record = self.state.sessions.get(session)
        return record is not None and (record.is_durable or record.wants_durable)

    def closed(self) -> PoolClosed:
        """Return the error for callers of a pool that takes no calls."""
        closed = PoolClosed(f"Pool {self.name!r} is closed: {self.broken or 'its supervisor was stopped'}.")
        closed.__cause__ = self.broken
        return closed

    def _send(self, instruction: Send, channels: list[Channel]) -> None:
        call = instruction.call
        worker = self.workers[instruction.generation]
        channel = worker.channel
        if not isinstance(call, Call) or channel is None:
            return
        if instruction.restore is not None:
            channel.append(self.durable.restore_frame(next_id(), instruction.restore))
        call.worker_name = worker.name
        if self.tally is not None or call.span is not None:
            call.sent_at = monotonic()
        worker.calls[call.id] = call  # before the frame: what is not in here was never sent, see `state.recovery`
        call.frame_end = channel.append(call.frame)
        channels.append(channel)

    def _with_worker(self, emit: Emit) -> Emit:
        """Return the facts with those that the state has not: the worker's name, its pid, and how it ended."""
        worker = self.workers.get(emit.facts.get("generation", 0))
        if worker is None:
            return emit
        end = call_errors.end_of(worker) if emit.event in ENDS else {}
        return Emit(emit.event, {"worker": worker.name, "pid": worker.pid, **emit.facts, **end})

    def _send_control(self, instruction: Cancel | DropSession | Stop, channels: list[Channel]) -> None:
        match instruction:
            case Cancel(generation=generation, call_id=id):
                self._append(generation, messages.write(Kind.CANCEL, id) + messages.write(Kind.PING, id), channels)
                self.deferred.instructions.append(instruction)
            case DropSession(generation=generation, session=session):
                self._append(generation, messages.write(Kind.DROP, session), channels)
                self.durable.drop(session)
            case Stop(generation=generation):
                self._append(generation, messages.write(Kind.STOP), channels)

    def _append(self, generation: int, frame: bytes, channels: list[Channel]) -> None:
        worker = self.workers.get(generation)
        if worker is not None and worker.channel is not None:
            worker.channel.append(frame)
            channels.append(worker.channel)

    def _fail(self, instruction: Fail, own: Call | None) -> None:
        call = instruction.call
        if not isinstance(call, Call):
            return
        self.live.pop(call.id, None)
        if call.is_ended:
            return
        call.end(error=call_errors.error_for(instruction, call, self._facts(), self.workers.get(call.generation)))
        self.counts["expired" if instruction.why is EndReason.LATE else "failed"] += 1
        self.note_end(call)
        if call is not own:  # whoever submits it looks at once
            self.deferred.ended.append(call)

    def _facts(self) -> call_errors.PoolFacts:
        return call_errors.PoolFacts(self.config, self.boot_error, self.state.is_over)


def rules_of(config: PoolConfig) -> Rules:
    """Return the settings that the state decides by."""
    return Rules(**{name: getattr(config, name) for name in Rules.__slots__})
