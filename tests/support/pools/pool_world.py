"""An executor double: it carries out what a PoolState decides, as workers and callers would, and checks each promise.

Time is a plain float. Every method is one event of the outside world; `pick` arguments are any int and choose among
what is possible. After each event the state's own invariants are checked too.
"""

from __future__ import annotations

from random import Random

from dspex.pools.state import invariants
from dspex.pools.state.instructions import (
    Cancel,
    DropSession,
    Emit,
    EndReason,
    Fail,
    Instruction,
    Kill,
    Send,
    Start,
    Stop,
)
from dspex.pools.state.machine import PoolState, Rules
from dspex.pools.state.records import CallRecord, Phase, SessionUse, WorkerPhase

EVENTS = {
    "call.abandoned",
    "call.redispatched",
    "pool.degraded",
    "session.expired",
    "session.lost",
    "session.moved",
    "worker.died",
    "worker.ready",
    "worker.recycling",
    "worker.retiring",
    "worker.stopped",
}


class TestTicket(CallRecord):
    """A ticket that remembers what happened to it."""

    __test__ = False
    __slots__ = ("dispatches", "ends", "life", "may_repeat")

    def __init__(self, id: int, command: str, **more: object) -> None:
        super().__init__(id, command, **more)  # type: ignore[arg-type]
        self.dispatches: list[int] = []
        self.ends: list[str] = []
        self.may_repeat = 0
        self.life = 0


class World:
    """One pool in a small universe."""

    def __init__(self, rules: Rules, *, seed: int = 0) -> None:
        self.rules = rules
        self.state = PoolState(rules, random=Random(seed))
        self.now = 100.0
        self.calls: list[TestTicket] = []
        self.starting: list[int] = []
        self.alive: set[int] = set()  # generations that were ready, and are not gone
        self.doomed: list[int] = []  # told to stop, or killed
        self.holds: dict[str, tuple[int, int]] = {}  # session: (generation, life) of its state
        self.lives: dict[str, int] = {}
        self.lost: set[str] = set()
        self.durable: set[str] = set()
        self.sessions_made = 0
        self.is_stopping = False
        self.carry_out(self.state.start(self.now))

    # -- callers --

    def submit(
        self,
        *,
        session: str | None = None,
        use: SessionUse = None,
        retries: int = 0,
        is_nested: bool = False,
        packed: bytes = b"",
        share: str = "",
    ) -> TestTicket:
        call = TestTicket(
            len(self.calls) + 1,
            "run",
            session=session,
            use=use,
            retries=retries,
            packed=packed,
            is_nested=is_nested,
            share=share,
        )
        self.calls.append(call)
        if session is not None:
            call.life = self.lives.get(session, 0)
        self._note_dropped(session or "")
        was_lost = session in self.lost
        self.carry_out(self.state.submit(call, self.now))
        if was_lost and not is_nested:
            assert call.ends, f"{call} was taken although {session} is lost"
        return call

    def submit_nested(self, pick: int, use: SessionUse) -> TestTicket | None:
        """A tool of a running call calls back."""
        outer = _choose([t for t in self.calls if t.phase is Phase.RUNNING], pick)
        if outer is None:
            return None
        call = TestTicket(len(self.calls) + 1, "nested", session=outer.session, use=use, is_nested=True)
        call.generation, call.life = outer.generation, outer.life
        self.calls.append(call)
        self.carry_out(self.state.submit(call, self.now))
        assert call.phase is not Phase.WAITING or not call.is_nested
        return call

    def abandon(self, pick: int) -> None:
        call = _choose([t for t in self.calls if not t.ends], pick)
        if call is not None:
            call.ends.append("abandoned")
            self.carry_out(self.state.abandon(call, self.now))

    def open_session(self, key: str, *, is_durable: bool = False, fresh: bool = False) -> None:
        if fresh:
            self._next_life(key)
        self._note_dropped(key)
        try:
            instructions = self.state.open_session(key, self.now, is_durable=is_durable, fresh=fresh)
        except KeyError:
            assert len(self.state.sessions) == self.rules.session_limit
            instructions = []
        self.carry_out(instructions)

    def close_session(self, key: str) -> None:
        self._next_life(key)
        self.carry_out(self.state.close_session(key, self.now))

    def _note_dropped(self, key: str) -> None:
        """So many sessions came that the pool had to drop the note that this one was lost (S7)."""
        if key not in self.state.sessions:
            self.lost.discard(key)

    def _next_life(self, key: str) -> None:
        self.lives[key] = self.lives.get(key, 0) + 1
        self.lost.discard(key)

    # -- workers --

    def ready(self, pick: int) -> None:
        generation = _choose(self.starting, pick)
        if generation is not None:
            self.starting.remove(generation)
            if generation not in self.doomed:
                self.alive.add(generation)
            self.carry_out(self.state.worker_ready(generation, self.now))

    def finish(self, pick: int, *, held: bool = True, retire: str | None = None) -> None:
        call = _choose(self.running(), pick)
        if call is not None:
            self.finish_ticket(call, held=held, retire=retire)

    def finish_ticket(self, call: TestTicket, *, held: bool = True, retire: str | None = None) -> None:
        if call.phase is Phase.RUNNING:
            call.ends.append("answered")
        says = held if call.use == "write" and call.session is not None else None
        key = call.session
        if says is not None and key is not None and key not in self.lost:
            record = self.state.sessions.get(key)
            is_kept = self.rules.affinity != "hint" or (record is not None and record.is_durable)
            if record is not None and record.pin == call.generation and is_kept:
                if says:
                    self.holds[key] = (call.generation, call.life)
                elif self.holds.get(key, (0, 0))[0] == call.generation:
                    del self.holds[key]
        self.carry_out(self.state.finished(call, self.now, held=says, retire=retire))

    def die(self, pick: int, *, by_itself: bool = True, unstarted: int = 0, cause: str = "died") -> None:
        """A worker dies; the last `unstarted` calls that it was sent had not begun."""
        generation = _choose(sorted(self.alive | set(self.starting) | set(self.doomed)), pick)
        if generation is not None:
            self.kill(generation, by_itself=by_itself, unstarted=unstarted, cause=cause)

    def kill(self, generation: int, *, by_itself: bool = True, unstarted: int = 0, cause: str = "died") -> None:
        record = self.state.workers.get(generation)
        running = list(record.running.values()) if record else []
        not_begun = {call.id for call in running[len(running) - min(unstarted, len(running)) :]}
        for call in running:
            assert isinstance(call, TestTicket)
            call.may_repeat += call.id in not_begun or call.retries > 0
        self.alive.discard(generation)
        self.starting = [other for other in self.starting if other != generation]
        self.doomed = [other for other in self.doomed if other != generation]
        self.carry_out(self.state.died(generation, self.now, by_itself=by_itself, unstarted=not_begun, cause=cause))
        for call in running:
            assert call.phase is not Phase.ABANDONED, f"{call} outlives its worker"

    def pong(self, pick: int) -> None:
        generation = _choose(sorted(self.alive), pick)
        if generation is not None:
            self.state.pong(generation)

    def measure(self, pick: int, rss: int) -> None:
        generation = _choose(sorted(self.alive), pick)
        if generation is not None:
            self.carry_out(self.state.measured(generation, rss, self.now))

    # -- the operator --

    def resize(self, size: int) -> None:
        self.carry_out(self.state.resize(size, self.now))

    def adopt(self, rules: Rules) -> None:
        if "hint" in (self.rules.affinity, rules.affinity):  # which promises nothing about state that is not kept here
            self.holds = {key: held for key, held in self.holds.items() if key in self.durable}
        self.rules = rules
        self.carry_out(self.state.adopt(rules, self.now))

    def recycle(self) -> None:
        self.carry_out(self.state.recycle(self.now))

    def close(self) -> None:
        self.carry_out(self.state.close(self.now))
        assert not self.state.queued

    def stop(self) -> None:
        self.is_stopping = True
        self.carry_out(self.state.stop_workers(self.now))

    # -- time --

    def pass_time(self, seconds: float) -> None:
        """Let time pass; the state is ticked whenever it asks for it."""
        until = self.now + seconds
        while self.state.due <= until:
            self.now = max(self.now, self.state.due)
            self.tick()
        self.now = until

    def tick(self) -> None:
        self.carry_out(self.state.tick(self.now))
        assert self.state.due > self.now, f"a tick at {self.now} asks for another at {self.state.due}"

    def settle(self) -> None:
        """Let everything come to its end; every call must."""
        for _ in range(10_000):
            if self.doomed:
                self.kill(self.doomed[0], by_itself=False)
            elif self.starting:
                self.ready(0)
            elif running := self.running():
                self.finish_ticket(running[0])
            elif any(not call.ends for call in self.calls):
                assert self.state.due < float("inf"), f"stuck: {[t for t in self.calls if not t.ends]}"
                self.pass_time(self.state.due - self.now)
            else:
                return
        raise AssertionError(f"no end in sight: {[t for t in self.calls if not t.ends]}")

    # -- carrying out --

    def carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send():
                    self._on_send(instruction)
                case Fail(call=call, why=why, facts=facts):
                    assert isinstance(call, TestTicket)
                    assert not call.ends, f"{call} ended {call.ends} and fails: {why}"
                    assert call.phase is Phase.DONE
                    call.ends.append(why.value)
                    _check_facts(why, facts)
                case Start(generation=generation):
                    assert generation not in self.alive and generation not in self.starting
                    self.starting.append(generation)
                case Stop(generation=generation):
                    assert generation in self.alive, "STOP to a worker that is not there"
                    is_busy = bool(self.state.workers[generation].running)
                    assert self.is_stopping or not is_busy, "STOP to a worker that runs calls"
                    self.doomed.append(generation)
                    self.alive.discard(generation)
                case Kill(generation=generation):
                    assert generation in self.state.workers
                    self.alive.discard(generation)
                    self.starting = [other for other in self.starting if other != generation]
                    self.doomed = [*(other for other in self.doomed if other != generation), generation]
                case Cancel(generation=generation, call_id=id):
                    assert generation in self.alive | set(self.doomed)
                    assert self.calls[id - 1].phase in (Phase.ABANDONED, Phase.DONE)
                case DropSession(session=key):
                    self.holds.pop(key, None)
                case Emit(event=event, facts=facts):
                    assert event in EVENTS
                    self._on_event(event, facts)
        self.check()

    def check(self) -> None:
        invariants.check(self.state)
        workers = self.state.workers.values()
        for worker in workers:
            is_there = worker.generation in self.alive | set(self.starting) | set(self.doomed)
            assert is_there, f"{worker} is on the roster and nowhere else"
        retiring = [worker for worker in workers if worker.phase is WorkerPhase.RETIRING]
        assert len(retiring) <= max(1, self.state.size), "more workers retire than the pool has (K5)"
        leaving = [w for w in workers if w.phase is WorkerPhase.DRAINING and w.leave_reason == "recycled"]
        assert len(leaving) <= 1, "two workers are recycled at once"
        assert len(self.state.staying()) <= self.state.size + 1 or self.state.is_over

    def running(self) -> list[TestTicket]:
        """Calls that some living worker runs."""
        there = self.alive | set(self.doomed)
        return [
            call for call in self.calls if call.phase in (Phase.RUNNING, Phase.ABANDONED) and call.generation in there
        ]

    def _on_send(self, send: Send) -> None:
        call = send.call
        assert isinstance(call, TestTicket)
        assert send.generation in self.alive, f"{call} was sent to a worker that is not ready"
        assert not call.ends, f"{call} ended {call.ends} and is sent"
        assert len(call.dispatches) <= call.may_repeat, f"{call} was sent twice"
        call.dispatches.append(send.generation)
        self._check_turn(call)
        if call.session is not None:
            self._check_session(call, call.session, send)

    def _check_turn(self, call: TestTicket) -> None:
        """No call of a session overtakes one that any worker may run and whose turn came earlier."""
        if call.is_nested or call.is_alone or self.state.workers[call.generation].phase is not WorkerPhase.READY:
            return
        earlier = [other for other in self.state.queue if other.turn < call.turn]
        assert not earlier, f"{call} overtakes {earlier}"

    def _check_session(self, call: TestTicket, key: str, send: Send) -> None:
        if not call.is_nested:
            earlier = [
                other
                for other in self.calls
                if other.session == key and other.order < call.order and other.phase in (Phase.QUEUED, Phase.WAITING)
            ]
            assert not [t for t in earlier if not t.is_nested], f"{call} overtakes {earlier} of its session"
        held = self.holds.get(key)
        record = self.state.sessions.get(key)
        is_durable = record is not None and record.is_durable
        if held is not None and held[1] == call.life:
            if is_durable and send.restore is not None:
                self.holds[key] = (send.generation, call.life)
            elif is_durable or self.rules.affinity != "hint":
                assert send.generation == held[0], f"{call} goes to {send.generation}, its state is at {held}"
        elif held is not None and not call.is_nested:
            assert send.generation != held[0], f"{call} sees the state of its session's former life"
        assert send.restore in (None, key)

    def _on_event(self, event: str, facts: dict[str, object]) -> None:
        if event == "session.lost":
            assert facts["reason"] in {"died", "killed", "recycled", "resized", "expired", "evicted"}
            record = self.state.sessions.get(str(facts["session"]))
            if record is not None and record.lost is not None and not record.ends:  # else: a former life
                self.lost.add(str(facts["session"]))
            self.holds.pop(str(facts["session"]), None)


def _choose(items: list, pick: int):  # type: ignore[type-arg, no-untyped-def]
    return items[pick % len(items)] if items else None


def _check_facts(why: EndReason, facts: dict[str, object]) -> None:
    expected = {
        EndReason.DIED: {"started"},
        EndReason.SESSION_LOST: {"reason", "generation"},
        EndReason.SATURATED: {"queued", "retry_after"},
        EndReason.POISON: {"digest", "strikes", "until", "until_s"},
        EndReason.UNHEALTHY: {"retry_in"},
        EndReason.BOOT: {"retry_in"},
    }
    assert set(facts) == expected.get(why, set()), (why, facts)
