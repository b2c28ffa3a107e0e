"""Submit calls and deliver results under the pool lock.

Any thread comes here. The lock is held for microseconds and moves references only; frames are encoded before it, and
written and waiters woken after it (C1 - C3). A caller's thread only writes frames afterwards; whatever else follows
(starting and killing workers, waking other callers, emitting events) is left to the engine's thread.

Signal handlers run in the main thread between any two bytecodes, and may raise. A section that such an exception left
in the middle leaves `_is_torn` set; whoever takes the lock next repairs the state first (see `state.recovery`), and the
engine is asked to, so nothing is lost and nothing is sent twice (C5, C6).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from time import monotonic
from typing import Any

from dspex_worker.wire import messages

from ..config import PoolConfig
from ..errors import CallTimeout, PoolClosed
from ..events import Bus
from . import state_events
from .call import Call, wake_all
from .call_tally import CallTally
from .changes import Changes
from .deferred import Deferred
from .executor import Executor, rules_of
from .loop_batching import LoopBatches
from .processes.channel import Channel
from .processes.engine import Engine
from .state.instructions import Cancel, Emit, Instruction
from .state.records import Phase
from .state.recovery import repair
from .worker import Worker

UNSENT = (Phase.NEW, Phase.QUEUED, Phase.WAITING)


class Dispatcher(Executor):
    """Dispatches the calls of one pool. The owner of the workers handles `Start` and `Kill`: see `Deferred.on`."""

    def __init__(self, config: PoolConfig, engine: Engine, bus: Bus) -> None:
        super().__init__(config, Deferred())
        self.lock = threading.Lock()
        self.changes = Changes(config.name, self.failure)
        self._engine = engine
        self._bus = bus
        self.deferred.on(Emit, self._emit)
        self.deferred.on(Cancel, self._end_callbacks)
        self._left: deque[Call | None] = deque()  # calls whose callers were interrupted; None: an operator was
        self._is_torn = False
        self._scan_at = inf  # no live call has an earlier deadline; threads, which look to theirs themselves, aside
        self.loop_batches = LoopBatches()

    # -- calls: any thread -------------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Send the call, queue it, or end it with a refusal: look at `call.is_ended` before waiting for it."""
        channels: list[Channel] = []
        with self.lock:
            if self._is_torn:
                self._repair(channels)
            self._is_torn = True
            if self.broken is not None:
                raise self.closed()
            self.counts["submitted"] += 1
            self.live[call.id] = call
            now = monotonic()
            self.carry_out(self.state.submit(call, now, is_late=call.deadline <= now), channels, own=call)
            if call.deadline < self._scan_at and call.lock is None:
                self._scan_at = call.deadline
            self._is_torn = False
        is_deferred = call.loop_batch is not None and call.loop_batch.defer_flush(channels)
        self._follow_up(() if is_deferred else channels)

    def give_up(self, call: Call, error: BaseException | None, count: str, *, wakes: bool = False) -> bool:
        """End the call here and in its worker; False if it has an outcome already (C7)."""
        channels: list[Channel] = []
        with self.lock:
            if self._is_torn:
                self._repair(channels)
            self._is_torn = True
            is_first = call.end(error=error)
            self.counts[count] += is_first
            if is_first:
                self.note_end(call, is_given_up=True)
            if is_first and wakes:
                self.deferred.ended.append(call)
            self.carry_out(self.state.abandon(call, monotonic()), channels)
            if call.phase is Phase.DONE:
                self.live.pop(call.id, None)
            self._is_torn = False
        self._follow_up(channels)
        return is_first

    def expire(self, call: Call, *, wakes: bool = False) -> None:
        """End a call whose deadline has passed; nothing if it has an outcome already."""
        is_queued = call.phase in UNSENT
        phase: Any = "queued" if is_queued else "running"
        error = CallTimeout(self.name, call.command, timeout=call.timeout, phase=phase)
        self.give_up(call, error, "expired", wakes=wakes)

    def recover(self, call: Call | None = None) -> None:
        """Have the engine abandon the call of an interrupted caller, and finish what that caller left undone."""
        self._left.append(call)
        self._engine.call_soon(self._recover)

    def change(self, event: Callable[[float], Iterable[Instruction]]) -> None:
        """Apply `event(now)` to the state, and carry out what follows from it.

        If the event raises, the state is repaired as after an interruption: both look alike from here.
        """
        channels: list[Channel] = []
        try:
            with self.lock:
                if self._is_torn:
                    self._repair(channels)
                self._is_torn = True
                self.carry_out(event(monotonic()), channels)
                self._is_torn = False
            self._follow_up(channels)
        except BaseException:  # also a signal handler's: the section may be half done (C5)
            self.recover()
            raise

    def adopt(self, config: PoolConfig) -> None:
        """Apply these settings from now on; the workers stay as they were made."""

        def adopted(now: float) -> list[Instruction]:
            self.config = config
            return self.state.adopt(rules_of(config), now)

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

    def deliver(self, worker: Worker, answers: list[messages.Message]) -> None:
        """Take a batch of final answers: free the slots, use them, wake the callers.

        Raises:
            Malformed: one of them says what cannot be; none is taken.
        """
        channels: list[Channel] = []
        taken: list[Call] = []
        ended: list[Call] = []
        with self.lock:
            if self._is_torn:
                self._repair(channels)
            self.require_room(worker, answers)
            self._is_torn = True
            try:
                self.take_answers(worker, answers, taken, ended, channels)
            except BaseException:  # the worker's fault or ours: end the calls, and repair the state
                self.end_halfway(taken, ended)
                self.recover()
                raise
            self._is_torn = False
        self._hand_on(channels)  # the engine, awake, asks for what is due before it sleeps
        if ended:
            self._engine.before_sleep(lambda: wake_all(ended))
        if worker.callbacks:  # it may not say itself that these wait no more
            for call in taken:
                self._end_callbacks(Cancel(worker.generation, call.id))

    def remove_worker(self, worker: Worker, died: Callable[[float], Iterable[Instruction]]) -> None:
        """Remove a dead worker; `died` reports it to the state, whose answer decides about its calls."""
        channels: list[Channel] = []
        with self.lock:
            if self._is_torn:
                self._repair(channels)
            self.carry_out(died(monotonic()), channels)
            self.workers.pop(worker.generation, None)
            for call in worker.calls.values():
                if call.phase is Phase.DONE:
                    self.live.pop(call.id, None)
        self._follow_up(channels)

    def fail_all(self, cause: BaseException) -> None:
        """Fail every call, now and later, with the error that ended the engine's thread (C12)."""
        with self.lock:
            self.broken = cause
            self.state.is_closed = self.state.is_over = True
            ended = [call for call in self.live.values() if call.end(error=self.closed())]
            for call in ended:
                self.note_end(call)
            self.live.clear()
        wake_all(ended)
        self.changes.notify()

    # -- time: the engine's thread -----------------------------------------------------------------------------

    @property
    def due(self) -> float:
        due = self.state.due
        return due if due < self._scan_at else self._scan_at

    def tick(self, now: float) -> None:
        if now >= self._scan_at:
            self._scan(now)
        if now >= self.state.due:
            self.change(lambda _: self.state.tick(now))  # at the time that the engine looked, see `Engine._catch_up`

    def _scan(self, now: float) -> None:
        """End the calls of coroutines and streams whose time is up. Rare: the next scan is at the earliest deadline."""
        with self.lock:
            self._scan_at = inf
            waiting = [call for call in self.live.values() if call.lock is None and not call.is_ended]
            self._scan_at = min([call.deadline for call in waiting if call.deadline > now], default=inf)
        for call in waiting:
            if call.deadline <= now:
                self.expire(call, wakes=True)

    def run_deferred(self) -> None:
        """Run what other threads deferred."""
        if self.deferred.run():
            self.changes.notify()

    def catch_up(self) -> None:
        """Wait for a change under way in another thread, then run what it deferred."""
        with self.lock:
            pass  # a change that another thread is making has left what follows when it gives the lock back
        self.run_deferred()

    def _emit(self, emit: Emit) -> None:
        self._bus.emit(state_events.NAMES[emit.event], pool=self.name, **emit.facts)

    def _end_callbacks(self, cancel: Cancel) -> None:
        """End the callbacks of a call that nobody waits for, without waiting for its worker.

        A language model's stream is closed now, even if the worker is busy in C.
        """
        worker = self.workers.get(cancel.generation)
        for callback in tuple(worker.callbacks.values()) if worker is not None else ():
            if callback.outer.id == cancel.call_id:
                callback.cancel()

    # -- questions ---------------------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether nobody waits for a call."""
        with self.lock:
            return not self.state.queued and not any(w.live_calls for w in self.state.workers.values())

    def tallied(self) -> CallTally:
        """Return how the calls have ended since this was first asked."""
        with self.lock:
            if self.tally is None:
                self.tally = CallTally()
            return self.tally.copy()

    def failure(self) -> PoolClosed | None:
        """Return the error of a pool whose engine has ended; None while it runs."""
        return self.closed() if self.broken is not None or not self._engine.is_alive else None

    def is_serving(self) -> bool:
        """Whether a worker is ready, and the engine reads its answers."""
        return self.broken is None and any(worker.phase == "ready" for worker in tuple(self.state.workers.values()))

    def ready_workers(self) -> int:
        """Return how many workers are ready."""
        return sum(worker.phase == "ready" for worker in tuple(self.state.workers.values()))

    # ============================================================================================================
    # under the lock

    def _repair(self, channels: list[Channel]) -> None:
        """Repair the state: the section before this one was interrupted in the middle."""
        for worker in self.workers.values():
            if worker.channel is not None:
                worker.channel.check_append()
        sent = {generation: worker.calls for generation, worker in self.workers.items()}
        self.carry_out(repair(self.state, self.live.values(), sent, monotonic()), channels)
        for id in [id for id, call in self.live.items() if call.phase is Phase.DONE]:
            del self.live[id]
        self._is_torn = False

    # ============================================================================================================
    # after the lock

    def _follow_up(self, channels: Sequence[Channel]) -> None:
        self._hand_on(channels)
        self._engine.wake_by(self.due)

    def _hand_on(self, channels: Sequence[Channel]) -> None:
        for channel in channels:
            channel.flush()
        if self.deferred.instructions or self.deferred.ended:
            self._engine.call_soon(self.run_deferred)

    def _recover(self) -> None:
        """On the engine's thread, which no signal handler interrupts: recover for all interrupted callers."""
        if not self._left:
            return
        while self._left:
            call = self._left.popleft()
            if call is not None:
                self.give_up(call, None, "cancelled")
            else:
                self.change(lambda now: [])
        for worker in tuple(self.workers.values()):
            if worker.channel is not None:
                worker.channel.resume()
        self.run_deferred()
