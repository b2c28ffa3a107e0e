"""The desk: one pool's lock, what it guards, and carrying out what the pool's state decides.

Any thread comes here. The lock is held for microseconds and moves references only; frames are encoded before it, and
written and waiters woken after it (C1 - C3). A caller's thread only writes frames afterwards; whatever else follows
(starting and killing workers, waking other callers, telling events) is left to the engine's thread.

Signal handlers run in the main thread between any two bytecodes, and may raise. A section that such an exception left
in the middle leaves `_is_torn` set; whoever takes the lock next mends the state first (see `mending`), and the engine
is asked to, so nothing is lost and nothing is sent twice (C5, C6).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from time import monotonic
from typing import Any

from dspex_worker.wire import messages
from dspex_worker.wire.messages import Kind

from ..config import PoolConfig
from ..errors import CallTimeout, PoolClosed, WorkerBootError
from ..events import Bus, Name
from . import failures
from .calls import Call, wake_all
from .channel import Channel
from .durable import DurableStore
from .engine import Engine
from .instructions import Cancel, Emit, Fail, Forget, Instruction, Kill, Send, Start, Stop
from .mending import mend
from .ports import Ports
from .requests import next_id
from .state import PoolState, Rules
from .tickets import Phase
from .worker import Worker

UNSENT = (Phase.NEW, Phase.QUEUED, Phase.WAITING)


class Desk:
    """Where calls are handed in and answers handed out. `start` and `kill` are set by whoever owns the workers."""

    def __init__(self, config: PoolConfig, engine: Engine, bus: Bus) -> None:
        self.config = config
        self.name = config.name
        self.counts = dict.fromkeys(("submitted", "answered", "failed", "expired", "cancelled", "deaths", "stops"), 0)
        self.state = PoolState(_rules(config))
        self.workers: dict[int, Worker] = {}
        self.durable = DurableStore()
        self.boot_error: WorkerBootError | None = None
        self.broken: BaseException | None = None
        self.changed = threading.Condition()  # workers came or went; nobody waits for it on a hot path
        self.start: Callable[[int, int], None]
        self.kill: Callable[[int, str], None]
        self.lock = threading.Lock()
        self._engine = engine
        self._bus = bus
        self._live: dict[int, Call] = {}  # every call that is queued, or that a worker has not answered yet
        self._is_torn = False
        self._ended: deque[Call] = deque()  # to be woken by the engine
        self._later: deque[Instruction] = deque()  # to be done by the engine
        self._scan_at = inf  # no live call has an earlier deadline; threads, which look to theirs themselves, aside
        self.ports = Ports()

    # -- calls: any thread -------------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Send the call, queue it, or end it with a refusal: look at `call.is_ended` before waiting for it."""
        channels: list[Channel] = []
        with self.lock:
            if self._is_torn:
                self._mend(channels)
            self._is_torn = True
            if self.broken is not None:
                raise self.closed()
            self.counts["submitted"] += 1
            self._live[call.id] = call
            self._carry_out(self.state.submit(call, monotonic()), channels, own=call)
            if call.deadline < self._scan_at and call.lock is None:
                self._scan_at = call.deadline
            self._is_torn = False
        is_held = call.port is not None and call.port.hold(channels)
        self._follow_up(() if is_held else channels)

    def give_up(self, call: Call, error: BaseException | None, count: str, *, wakes: bool = False) -> bool:
        """End the call here and in its worker; False if it has an outcome already (C7)."""
        channels: list[Channel] = []
        with self.lock:
            if self._is_torn:
                self._mend(channels)
            self._is_torn = True
            is_first = call.end(error=error)
            self.counts[count] += is_first
            if is_first and wakes:
                self._ended.append(call)
            self._carry_out(self.state.abandon(call, monotonic()), channels)
            if call.phase is Phase.DONE:
                self._live.pop(call.id, None)
            self._is_torn = False
        self._follow_up(channels)
        return is_first

    def expire(self, call: Call, *, wakes: bool = False) -> None:
        """Its deadline has passed, or it has an outcome already."""
        is_queued = call.phase in UNSENT
        phase: Any = "queued" if is_queued else "running"
        error = CallTimeout(self.name, call.command, timeout=call.timeout, phase=phase)
        self.give_up(call, error, "expired", wakes=wakes)

    def recover(self, call: Call | None = None) -> None:
        """A caller was interrupted, perhaps in here: the engine gives its call up, and does what was left undone."""
        self._engine.call_soon(lambda: self._recover(call))

    def change(self, event: Callable[[float], Iterable[Instruction]]) -> None:
        """Apply `event(now)` to the state, and carry out what follows from it.

        If the event raises, the state is mended as after an interruption: both look alike from here.
        """
        channels: list[Channel] = []
        try:
            with self.lock:
                if self._is_torn:
                    self._mend(channels)
                self._is_torn = True
                self._carry_out(event(monotonic()), channels)
                self._is_torn = False
            self._follow_up(channels)
        except BaseException:
            self.recover()
            raise

    def adopt(self, config: PoolConfig) -> None:
        """Decide by these settings from now on; the workers stay as they were made."""

        def adopted(now: float) -> list[Instruction]:
            self.config = config
            return self.state.adopt(_rules(config), now)

        self.change(adopted)

    def post(self, worker: Worker, frame: bytes) -> None:
        """Send a frame to a worker, if it is still there."""
        with self.lock:
            channel = worker.channel
            if channel is None or worker.generation not in self.workers:
                return
            channel.append(frame)
        channel.flush()

    # -- answers: the engine's thread --------------------------------------------------------------------------

    def settle(self, worker: Worker, answers: list[messages.Message]) -> None:
        """Take a batch of final answers: free the slots, use them, wake the callers."""
        channels: list[Channel] = []
        ended: list[Call] = []
        with self.lock:
            if self._is_torn:
                self._mend(channels)
            now = monotonic()
            for kind, id, body, notes in answers:
                call = worker.calls.pop(id, None)
                if call is None:
                    continue
                del self._live[id]
                notes = notes if type(notes) is dict else NO_NOTES
                if call.is_durable and "wrote" in notes and call.session is not None:
                    self.durable.apply(call.session, notes)
                if not call.is_ended:
                    self._end(call, kind, body, worker)
                    ended.append(call)
                self._carry_out(
                    self.state.finished(call, now, held=notes.get("held"), retire=notes.get("retire")), channels
                )
        self._follow_up(channels)
        if ended:
            self._engine.call_last(lambda: wake_all(ended))

    def bury(self, worker: Worker, died: Callable[[float], Iterable[Instruction]]) -> None:
        """Take a dead worker away; `died` says so to the state, whose answer decides about its calls."""
        channels: list[Channel] = []
        with self.lock:
            if self._is_torn:
                self._mend(channels)
            self._carry_out(died(monotonic()), channels)
            self.workers.pop(worker.generation, None)
            for call in worker.calls.values():
                if call.phase is Phase.DONE:
                    self._live.pop(call.id, None)
        self._follow_up(channels)

    def break_down(self, cause: BaseException) -> None:
        """The engine's thread ended: every call, now and later, fails with the cause (C12)."""
        with self.lock:
            self.broken = cause
            ended = [call for call in self._live.values() if call.end(error=self.closed())]
            self._live.clear()
        wake_all(ended)
        self.notify()

    # -- time: the engine's thread -----------------------------------------------------------------------------

    @property
    def due(self) -> float:
        due = self.state.due
        return due if due < self._scan_at else self._scan_at

    def tick(self, now: float) -> None:
        if now >= self._scan_at:
            self._scan(now)
        if now >= self.state.due:
            self.change(self.state.tick)

    def _scan(self, now: float) -> None:
        """End the calls of coroutines and streams whose time is up. Rare: the next scan is at the earliest deadline."""
        with self.lock:
            self._scan_at = inf
            waiting = [call for call in self._live.values() if call.lock is None and not call.is_ended]
            self._scan_at = min([call.deadline for call in waiting if call.deadline > now], default=inf)
        for call in waiting:
            if call.deadline <= now:
                self.expire(call, wakes=True)

    def work_off(self) -> None:
        """Do what other threads left to the engine."""
        if self._ended:
            wake_all(self._ended.popleft() for _ in range(len(self._ended)))
        if not self._later:
            return
        while self._later:
            instruction = self._later.popleft()
            match instruction:
                case Start(generation=generation, slot=slot):
                    self.start(generation, slot)
                case Kill(generation=generation, reason=reason):
                    self.kill(generation, reason)
                case Emit(event=event, facts=facts):
                    self._bus.emit(EVENTS[event], pool=self.name, **facts)
                case Cancel(generation=generation, ticket_id=id):
                    self._end_requests(generation, id)
        self.notify()

    def _end_requests(self, generation: int, call_id: int) -> None:
        """Nobody waits for the call: end what its worker asked of this process, without waiting for its word.

        A language model's stream is closed now, even if the worker is busy in C.
        """
        worker = self.workers.get(generation)
        for request in tuple(worker.reverse.values()) if worker is not None else ():
            if request.outer.id == call_id:
                request.cancel()

    # -- questions ---------------------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether nobody waits for a call."""
        with self.lock:
            return not self.state.queued and not any(w.live_calls for w in self.state.workers.values())

    def is_serving(self) -> bool:
        """Whether a worker is ready."""
        return any(worker.phase == "ready" for worker in tuple(self.state.workers.values()))

    def notify(self) -> None:
        """Wake those who wait for workers to come or go."""
        with self.changed:
            self.changed.notify_all()

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Block until `is_done()`; False if that took longer than `timeout`.

        Raises:
            PoolClosed: the engine has died.
        """
        deadline = inf if timeout is None else monotonic() + timeout
        while not is_done():
            if self.broken is not None:
                raise self.closed()
            if monotonic() >= deadline:
                return False
            with self.changed:
                self.changed.wait(0.01)  # calls end without notice
        return True

    def insist(self, is_done: Callable[[], bool], timeout: float | None, what: str) -> None:
        """Block until `is_done()`.

        Raises:
            TimeoutError: the pool did not do what was asked within `timeout` seconds.
            PoolClosed: the engine has died.
        """
        if not self.wait_until(is_done, timeout):
            raise TimeoutError(f"Pool {self.name!r} did not {what} within {timeout:g} s; it goes on.")

    def closed(self) -> PoolClosed:
        closed = PoolClosed(f"Pool {self.name!r} is closed: {self.broken or 'its supervisor was stopped'}.")
        closed.__cause__ = self.broken
        return closed

    # ============================================================================================================
    # under the lock

    def _carry_out(self, instructions: Iterable[Instruction], channels: list[Channel], own: Call | None = None) -> None:
        """Move references; what blocks or calls out is left to `_follow_up` and the engine."""
        for instruction in instructions:
            kind = type(instruction)
            if kind is Send:
                self._send(instruction, channels)  # type: ignore[arg-type]
            elif kind is Fail:
                self._fail(instruction, own)  # type: ignore[arg-type]
            elif kind is Emit:
                self._later.append(self._with_worker(instruction))  # type: ignore[arg-type]
            elif kind is Start or kind is Kill:
                self._later.append(instruction)
            else:
                self._tell(instruction, channels)

    def _send(self, instruction: Send, channels: list[Channel]) -> None:
        call = instruction.ticket
        worker = self.workers[instruction.generation]
        channel = worker.channel
        if not isinstance(call, Call) or channel is None:
            return
        if instruction.restore is not None:
            channel.append(self.durable.restore_frame(next_id(), instruction.restore))
        call.worker_name = worker.name
        worker.calls[call.id] = call  # before the frame: what is not in here was never sent, see `mending`
        call.frame_end = channel.append(call.frame)
        channels.append(channel)

    def _with_worker(self, emit: Emit) -> Emit:
        """With what the state does not know of the worker: its name, its pid, and how it ended."""
        worker = self.workers.get(emit.facts.get("generation", 0))
        if worker is None:
            return emit
        end = failures.end_of(worker) if emit.event in ENDS else {}
        return Emit(emit.event, {"worker": worker.name, "pid": worker.pid, **emit.facts, **end})

    def _tell(self, instruction: Instruction, channels: list[Channel]) -> None:
        match instruction:
            case Cancel(generation=generation, ticket_id=id):
                self._append(generation, messages.write(Kind.CANCEL, id) + messages.write(Kind.PING, id), channels)
                self._later.append(instruction)
            case Forget(generation=generation, session=session):
                self._append(generation, messages.write(Kind.FORGET, session), channels)
                self.durable.drop(session)
            case Stop(generation=generation):
                self._append(generation, messages.write(Kind.STOP), channels)

    def _append(self, generation: int, frame: bytes, channels: list[Channel]) -> None:
        worker = self.workers.get(generation)
        if worker is not None and worker.channel is not None:
            worker.channel.append(frame)
            channels.append(worker.channel)

    def _fail(self, instruction: Fail, own: Call | None) -> None:
        call = instruction.ticket
        if not isinstance(call, Call):
            return
        self._live.pop(call.id, None)
        if call.is_ended:
            return
        call.end(error=failures.error_for(instruction, call, self, self.workers.get(call.generation)))
        self.counts["failed"] += 1
        if call is not own:  # whoever submits it looks at once
            self._ended.append(call)

    def _end(self, call: Call, kind: int, body: Any, worker: Worker) -> None:
        if kind != Kind.ERROR:
            self.counts["answered"] += 1
            call.end(body)
            return
        self.counts["failed"] += 1
        call.end(error=failures.error_from_reply(body, call, self.name, worker))

    def _mend(self, channels: list[Channel]) -> None:
        """The section before this one was interrupted in the middle."""
        for worker in self.workers.values():
            if worker.channel is not None:
                worker.channel.check_append()
        sent = {generation: worker.calls for generation, worker in self.workers.items()}
        self._carry_out(mend(self.state, self._live.values(), sent, monotonic()), channels)
        for id in [id for id, call in self._live.items() if call.phase is Phase.DONE]:
            del self._live[id]
        self._is_torn = False

    # ============================================================================================================
    # after the lock

    def _follow_up(self, channels: Sequence[Channel]) -> None:
        for channel in channels:
            channel.flush()
        if self._later or self._ended:
            self._engine.call_soon(self.work_off)
        self._engine.notice(self.due)

    def _recover(self, call: Call | None) -> None:
        """On the engine's thread, which no signal handler interrupts."""
        if call is not None:
            self.give_up(call, None, "cancelled")
        else:
            self.change(lambda now: [])
        for worker in tuple(self.workers.values()):
            if worker.channel is not None:
                worker.channel.go_on()
        self.work_off()


def _rules(config: PoolConfig) -> Rules:
    return Rules(**{name: getattr(config, name) for name in Rules.__slots__})


ENDS = ("worker.died", "worker.stopped")
NO_NOTES: dict[str, Any] = {}

EVENTS = {
    "worker.ready": Name.WORKER_READY,
    "worker.died": Name.WORKER_DIED,
    "worker.stopped": Name.WORKER_STOPPED,
    "worker.recycling": Name.WORKER_RECYCLING,
    "worker.retiring": Name.WORKER_RETIRING,
    "pool.degraded": Name.POOL_DEGRADED,
    "session.moved": Name.SESSION_MOVED,
    "session.lost": Name.SESSION_LOST,
    "session.expired": Name.SESSION_EXPIRED,
    "call.abandoned": Name.CALL_ABANDONED,
    "call.redispatched": Name.CALL_REDISPATCHED,
}
