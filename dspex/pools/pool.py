"""One pool: a lock, a PoolState that decides, and the workers that it decides about.

Threads. Any thread calls `call`, `stream` and the operator's verbs; the engine's thread reads replies, starts workers
and buries them. The lock guards `state`, `workers` and each worker's `calls`; it is held for microseconds and moves
references only: frames are encoded before it, written, and waiters woken, after it (C1 - C3).
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import MAGIC, PROTOCOL, Malformed, OverLimit, Unencodable, messages
from dspex_worker.wire.messages import Kind, Message

from ..config import PoolConfig
from ..errors import (
    CallCancelled,
    CallTimeout,
    EncodeError,
    FrameTooLarge,
    PoolClosed,
    UnknownName,
    WorkerBootError,
    WouldDeadlock,
)
from ..events import Bus, Name
from . import failures
from .calls import Call, wake_all
from .channel import Channel
from .durable import DurableStore
from .engine import Engine
from .instructions import Cancel, Emit, Fail, Forget, Instruction, Kill, Send, Start, Stop
from .remote import error_from
from .reverse import Handlers, ReverseCall, outer_call
from .spawn import TemplateProcess
from .state import PoolState, Rules
from .stats import PoolStats, stats_of
from .streams import CREDIT, AsyncStream, Stream, StreamBuffer
from .tickets import Phase
from .worker import Worker

if TYPE_CHECKING:
    from .supervisor import Supervisor

EXIT_PATIENCE = 0.02  # seconds that a dead worker's calls wait for the template's word on how it died (T3)
TEMPLATE_RETRY = (0.1, 30.0)  # seconds: the first and the longest wait before a lost template is started again
FAR = 1e9  # a timeout beyond is none

_ids = itertools.count(1, 2)  # odd: the supervisor's side of the wire


class Pool:
    """A named pool of workers. Made by `Supervisor`; `sup.pool(name)` gives it."""

    def __init__(
        self, config: PoolConfig, engine: Engine, bus: Bus, handlers: Handlers, supervisor: Supervisor
    ) -> None:
        self.config = config
        self.name = config.name
        self.commands: dict[str, dict[str, Any]] = {}
        self.counts = dict.fromkeys(("submitted", "answered", "failed", "expired", "cancelled", "deaths"), 0)
        self._supervisor = supervisor
        self._engine = engine
        self._bus = bus
        self._handlers = handlers
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._state = PoolState(_rules(config))
        self._workers: dict[int, Worker] = {}
        self._durable = DurableStore()
        self._template: TemplateProcess | None = None
        self._retired_templates: list[TemplateProcess] = []  # alive as long as workers that they forked
        self._is_template_warm = False
        self._template_retry_at = math.inf
        self._template_failures = 0
        self._to_spawn: list[tuple[int, int]] = []
        self._dying: dict[int, float] = {}
        self._boot_error: WorkerBootError | None = None
        self._broken: BaseException | None = None
        self._is_stopped = False

    # -- calls -------------------------------------------------------------------------------------------------

    def call(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Run a command on a worker and give its result; blocks.

        Raises:
            CallTimeout, WorkerDied, RemoteError and the other rows of the failure table in docs/errors.md.
        """
        options: Any = {"session": session, "timeout": timeout, "idempotent": idempotent}
        return self.invoke(command, arguments, **options).result()

    async def acall(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Any:
        """`call`, awaited. Cancelling the task cancels the call."""
        options: Any = {"session": session, "timeout": timeout, "idempotent": idempotent}
        return (await self.ainvoke(command, arguments, **options)).result()

    def invoke(self, command: str, arguments: dict[str, Any] | None = None, **options: Any) -> Call:
        """`call`, giving the ended Call: `.result()`, and the `.worker_name` and `.generation` that ran it.

        `cancel(callback)`, if given, is asked to have `callback` called when the caller does not want it any more; what
        it returns takes that back.
        """
        cancel = options.pop("cancel", None)
        call = self._make(command, arguments, options.pop("session", None), options.pop("timeout", None), **options)
        call.wait_in_thread()
        take_back = None
        try:
            self._submit(call)
            take_back = cancel(lambda: self.cancel(call)) if cancel is not None else None
            self._wait(call)
        except BaseException:
            self.abandon(call)
            raise
        finally:
            if take_back is not None:
                take_back()
        return call

    async def ainvoke(self, command: str, arguments: dict[str, Any] | None = None, **options: Any) -> Call:
        """`invoke`, awaited."""
        call = self._make(command, arguments, options.pop("session", None), options.pop("timeout", None), **options)
        await self._run(call)
        return call

    def stream(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """Run a streaming command and iterate over its chunks; `.value` is what it returned in the end."""
        call = self._make(command, arguments, session, timeout, credit=CREDIT)
        buffer = call.stream = StreamBuffer(None)
        try:
            self._submit(call)
        except BaseException:
            self.abandon(call)
            raise
        return Stream(call, buffer, self._grant, self)

    def astream(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = None,
        timeout: float | None = None,
    ) -> AsyncStream:
        """`stream`, for `async for`; needs a running event loop."""
        import asyncio

        call = self._make(command, arguments, session, timeout, credit=CREDIT)
        buffer = call.stream = StreamBuffer(asyncio.get_running_loop())
        try:
            self._submit(call)
        except BaseException:
            self.abandon(call)
            raise
        return AsyncStream(call, buffer, self._grant, self)

    def expire(self, call: Call) -> None:
        """Its deadline has passed, or it has an outcome already (C7)."""
        phase = "queued" if call.phase in (Phase.QUEUED, Phase.WAITING, Phase.NEW) else "running"
        error = CallTimeout(self.name, call.command, timeout=call.timeout, phase=phase)  # type: ignore[arg-type]
        self._give_up(call, error, "expired")

    def abandon(self, call: Call) -> None:
        """Nobody waits for it any more."""
        self._give_up(call, None, "cancelled")

    def cancel(self, call: Call) -> None:
        """End a call from another thread than its caller's: that one gets CallCancelled."""
        text = f"The call {call.command!r} in pool {self.name!r} was cancelled by another thread of its caller."
        if self._give_up(call, CallCancelled(text), "cancelled"):
            wake_all([call])

    def abandon_later(self, call: Call) -> None:
        """`abandon` for finalizers: takes no lock (C11)."""
        self._engine.call_soon(lambda: self.abandon(call))

    # -- the operator ------------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Aim at `size` workers; those too many finish their calls first."""
        if size < 1:
            raise ValueError(f"pool {self.name!r} cannot have {size} workers: give 1 or more")
        self._change(lambda now: self._state.resize(size, now))
        self._bus.emit(Name.POOL_RESIZED, pool=self.name, size=size)

    def recycle(self, *, reload: bool = False, timeout: float | None = None) -> None:
        """Replace every worker, one at a time, each successor ready first; `reload` imports the code anew.

        Blocks until all are replaced.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; it goes on nevertheless.
        """
        with self._lock:
            old = {generation for generation, worker in self._state.workers.items() if worker.is_staying}
        if reload:
            self._engine.call_soon(self._replace_template)
        self._change(lambda now: self._state.recycle(now, generations=old))
        self._wait_until(lambda: not old & self._state.workers.keys(), timeout, "replace its workers")

    def drain(self, timeout: float | None = None) -> None:
        """Take no new calls and wait until all that were taken have ended."""
        with self._lock:
            self._state.is_closed = True
        self._wait_until(self._is_idle, timeout, "finish its calls")

    def forgive(self, digest: str) -> bool:
        """End a poison call's quarantine; False if there is none."""
        with self._lock:
            return self._state.poison.forgive(digest)

    def stats(self) -> PoolStats:
        """Give what the pool is doing now."""
        with self._lock:
            template = self._template.pid if self._template else None
            return stats_of(self.config, self._state, self._workers, self.counts, template, self._boot_error)

    # -- sessions ----------------------------------------------------------------------------------------------

    def open_session(self, key: str, *, is_durable: bool, fresh: bool) -> None:
        from ..errors import SessionLimit

        if fresh:
            self._durable.drop(key)
        try:
            self._change(lambda now: self._state.open_session(key, now, is_durable=is_durable, fresh=fresh))
        except KeyError:
            limit = self.config.session_limit
            message = f"Pool {self.name!r} has {limit} sessions (session_limit), and each holds state."
            raise SessionLimit(message, pool=self.name, session=key) from None
        if is_durable:
            self._durable.keep(key)

    def close_session(self, key: str) -> None:
        self._durable.drop(key)
        self._change(lambda now: self._state.close_session(key, now))

    # -- life: called by the supervisor --------------------------------------------------------------------------

    def start(self) -> None:
        self._engine.call_soon(self._begin)

    def wait_ready(self, timeout: float) -> None:
        """Wait until one worker is ready.

        Raises:
            WorkerBootError: none can start; it holds the end of what it printed.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._is_ready():
                if self._boot_error is not None and not self._state.workers:
                    raise self._boot_error
                if self._is_stopped or self._broken:
                    raise self._closed()
                if not self._changed.wait(min(0.2, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise WorkerBootError(
                        f"Pool {self.name!r} has no ready worker after {timeout:g} s. Its workers are still starting; "
                        f"raise startup_timeout, or look at what they print.",
                        pool=self.name,
                        stderr_tail=self._stderr_tail(),
                    )

    def close(self) -> None:
        """Take no more calls; those that were not sent end with PoolClosed."""
        self._change(self._state.close)

    def stop(self, grace: float) -> None:
        """Let running calls go on for `grace` seconds, then end every worker and the template."""
        deadline = time.monotonic() + grace
        self._wait_until(self._is_idle, max(0.0, grace), None)
        self._change(self._state.stop_workers)
        self._wait_until(lambda: not self._workers, max(0.0, min(1.0, deadline - time.monotonic())), None)
        done = threading.Event()
        self._engine.call_soon(lambda: self._end(done))
        if not done.wait(2.0) and self._engine.is_alive:
            raise PoolClosed(f"Pool {self.name!r} did not end within 2 s of its stop_grace; its processes are killed.")

    def descriptors(self) -> list[int]:
        """What a forked child of the host must close."""
        template = self._template.descriptors() if self._template else []
        return [*template, *(fd for worker in self._workers.values() for fd in worker.descriptors())]

    # -- Timed -------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        return min(self._state.due, self._template_retry_at, min(self._dying.values(), default=math.inf))

    def tick(self, now: float) -> None:
        for generation in [generation for generation, until in self._dying.items() if until <= now]:
            self._bury(self._workers[generation])
        if now >= self._template_retry_at:
            self._template_retry_at = math.inf
            self._launch_template()
        if now >= self._state.due:
            self._change(self._state.tick)

    def engine_died(self, cause: BaseException) -> None:
        """The engine's thread ended: every call, now and later, fails with the cause (C12)."""
        self._broken = cause
        with self._lock:
            ended = [call for worker in self._workers.values() for call in worker.calls.values()]
            ended += [ticket for ticket in self._state._all_queued() if isinstance(ticket, Call)]
            ended = [call for call in ended if call.end(error=self._closed())]
        wake_all(ended)

    # ============================================================================================================
    # making, submitting and waiting

    def _make(
        self,
        command: str,
        arguments: dict[str, Any] | None,
        session: str | None,
        timeout: float | None,
        *,
        idempotent: bool = False,
        credit: int | None = None,
    ) -> Call:
        """Encode the call in the caller's thread (C1)."""
        self._supervisor.check_usable()
        declared = self._declared(command)
        timeout = self.config.call_timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        outer = outer_call()
        is_nested = outer is not None and outer[0] is self
        meta = _meta(deadline, session, credit, is_nested, self._durable.is_kept(session))
        id = next(_ids)
        try:
            frame, packed = messages.write_call(id, command, {} if arguments is None else arguments, meta)
        except Unencodable as error:
            raise EncodeError(error.path, error.type_name, error.reason) from None
        except OverLimit as error:
            raise FrameTooLarge("parent", error.limit, error.actual, what=error.what) from None
        call = Call(
            id,
            command,
            frame=frame,
            packed=packed,
            timeout=timeout,
            deadline=deadline,
            session=session,
            session_name=session or "",
            use=declared.get("session"),
            retries=1 if idempotent else 0,
            is_nested=is_nested,
            is_durable=bool(meta.get("durable")),
        )
        if is_nested and outer is not None:
            call.generation = outer[1].generation
            self._require_no_deadlock(call, outer[1])
        return call

    def _declared(self, command: str) -> dict[str, Any]:
        if not self.commands:
            return {}
        try:
            return self.commands[command]
        except KeyError:
            raise UnknownName("command", command, self.commands, where=f"pool {self.name!r}") from None

    def _require_no_deadlock(self, call: Call, outer: Call) -> None:
        """A nested call runs beside its outer call; in another session it may only use room that is free (C14)."""
        if call.session in (None, outer.session):
            return
        call.is_nested = False
        if not self._state._has_room():
            raise WouldDeadlock(
                f"A tool of {outer.command!r} calls {call.command!r} in session {call.session_name!r} of its own pool "
                f"{self.name!r}, which has no free slot: it could only wait for itself. Use the outer call's session, "
                f"another pool, or a larger size."
            )

    def _submit(self, call: Call) -> None:
        with self._lock:
            if self._broken is not None:
                raise self._closed()
            self.counts["submitted"] += 1
            after = self._carry_out(self._state.submit(call, time.monotonic()))
        self._follow_up(after)

    def _wait(self, call: Call) -> None:
        remaining = call.remaining()
        lock = call.lock
        if lock is not None and not lock.acquire(timeout=-1 if remaining > FAR else max(0.0, remaining)):
            self.expire(call)

    async def _run(self, call: Call) -> None:
        """Submit and wait; no await stands between the two (C6)."""
        future = call.wait_in_loop()
        loop = call.loop
        timer = None
        try:
            self._submit(call)
            remaining = call.remaining()
            if remaining < FAR and loop is not None and not call.is_ended:
                timer = loop.call_later(max(0.0, remaining), self._expire_in_loop, call)
            await future
        except BaseException:
            self.abandon(call)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire_in_loop(self, call: Call) -> None:
        self.expire(call)
        if call.future is not None and not call.future.done():
            call.future.set_result(None)

    def _give_up(self, call: Call, error: BaseException | None, count: str) -> bool:
        """End it here and in its worker; False if it has an outcome already."""
        with self._lock:
            is_first = call.end(error=error)
            self.counts[count] += is_first
            after = self._carry_out(self._state.abandon(call, time.monotonic()))
        self._follow_up(after)
        return is_first

    def _grant(self, call: Call, count: int) -> None:
        """The consumer of a stream took chunks: its worker may send as many more."""
        frame = messages.write(Kind.CREDIT, call.id, count)
        worker = self._workers.get(call.generation)
        if worker is not None:
            self.post(worker, frame)

    def post(self, worker: Worker, frame: bytes) -> None:
        """Send a frame to a worker, if it is still there."""
        with self._lock:
            channel = worker.channel
            if channel is None or worker.generation not in self._workers:
                return
            channel.append(frame)
        channel.flush()

    # ============================================================================================================
    # carrying out what the state decides

    def _change(self, event: Callable[[float], list[Instruction]]) -> None:
        with self._lock:
            after = self._carry_out(event(time.monotonic()))
        self._follow_up(after)

    def _carry_out(self, instructions: Iterable[Instruction]) -> _After:
        """Move references; what blocks or calls out waits for `_follow_up`. The lock is held."""
        after = _After()
        for instruction in instructions:
            match instruction:
                case Send():
                    self._send(instruction, after)
                case Fail():
                    self._fail(instruction, after)
                case Cancel():
                    ping = messages.write(Kind.PING, instruction.ticket_id)
                    self._append(instruction.generation, messages.write(Kind.CANCEL, instruction.ticket_id), after)
                    self._append(instruction.generation, ping, after)
                case Forget():
                    self._append(instruction.generation, messages.write(Kind.FORGET, instruction.session), after)
                    self._durable.drop(instruction.session)
                case Stop():
                    self._append(instruction.generation, messages.write(Kind.STOP), after)
                case Start() | Kill() | Emit():
                    after.later.append(instruction)
        return after

    def _follow_up(self, after: _After) -> None:
        """Write, wake, start and tell: outside the lock, in whichever thread brought it about."""
        for channel in after.channels:
            channel.flush()
        if after.ended:
            wake_all(after.ended)
        for instruction in after.later:
            self._do_later(instruction)
        if self._state.due < math.inf:
            self._engine.notice(self._state.due)
        if after.later:
            with self._changed:
                self._changed.notify_all()

    def _do_later(self, instruction: Instruction) -> None:
        match instruction:
            case Start(generation=generation, slot=slot):
                self._engine.call_soon(lambda: self._spawn(generation, slot))
            case Kill(generation=generation, reason=reason):
                self._engine.call_soon(lambda: self._kill(generation, reason))
            case Emit(event=event, facts=facts):
                self._bus.emit(_EVENTS[event], pool=self.name, **facts)

    def _send(self, instruction: Send, after: _After) -> None:
        call = instruction.ticket
        worker = self._workers[instruction.generation]
        channel = worker.channel
        if not isinstance(call, Call) or channel is None:
            return
        if instruction.restore is not None:
            channel.append(self._durable.restore_frame(next(_ids), instruction.restore))
        call.worker_name = worker.name
        worker.calls[call.id] = call
        call.frame_end = channel.append(call.frame)
        after.channels.append(channel)

    def _append(self, generation: int, frame: bytes, after: _After) -> None:
        worker = self._workers.get(generation)
        if worker is not None and worker.channel is not None:
            worker.channel.append(frame)
            after.channels.append(worker.channel)

    def _fail(self, instruction: Fail, after: _After) -> None:
        call = instruction.ticket
        if not isinstance(call, Call):
            return
        worker = self._workers.get(call.generation)
        error = failures.error_for(instruction, call, self, worker)
        if call.end(error=error):
            self.counts["failed"] += 1
            after.ended.append(call)

    # ============================================================================================================
    # replies: the engine's thread

    def _on_output(self, worker: Worker) -> None:
        """Its stdout has something: take it all, under one turn of the lock."""
        data, _ = worker.read()
        if data:
            self._take(worker, data)

    def _take(self, worker: Worker, data: bytes) -> None:
        try:
            received = [messages.read(body) for body in worker.buffer.feed(data)]
        except Malformed as error:
            self._retire_for_protocol(worker, str(error))
            return
        if not received:
            return
        for message in received:
            if message[0] == Kind.CHUNK:  # before the END that may be in the same batch
                self._on_chunk(worker, message)
        ended: list[Call] = []
        with self._lock:
            instructions: list[Instruction] = []
            now = time.monotonic()
            for message in received:
                kind = message[0]
                if kind == Kind.RESULT or kind == Kind.ERROR or kind == Kind.END:
                    self._finish(worker, message, now, instructions, ended)
            after = self._carry_out(instructions)
        after.ended += ended
        for message in received:
            handler = _ON_MESSAGE.get(message[0])
            if handler is not None:
                handler(self, worker, message)
        self._follow_up(after)

    def _finish(
        self, worker: Worker, message: Message, now: float, instructions: list[Instruction], ended: list[Call]
    ) -> None:
        """A call's final answer. The lock is held."""
        kind, id, body, notes = message
        call = worker.calls.pop(id, None)
        if call is None:
            if kind == Kind.ERROR and id == 0:
                worker.boot_error = body
            return
        notes = notes if type(notes) is dict else _NO_NOTES
        if call.is_durable and "wrote" in notes and call.session:
            self._durable.apply(call.session, notes)
        if not call.is_ended:
            self._settle(call, kind, body, worker)
            ended.append(call)
        instructions += self._state.finished(call, now, held=notes.get("held"), retire=notes.get("retire"))

    def _settle(self, call: Call, kind: int, body: Any, worker: Worker) -> None:
        if kind != Kind.ERROR:
            self.counts["answered"] += 1
            call.end(body)
            return
        self.counts["failed"] += 1
        names = {"pool": self.name, "command": call.command, "worker": worker.name, "session": call.session_name}
        call.end(error=error_from(body, **names))

    def _on_chunk(self, worker: Worker, message: Message) -> None:
        call = worker.calls.get(message[1])
        if call is not None and call.stream is not None and not call.is_ended:
            call.stream.put(message[2])

    def _on_pong(self, worker: Worker, message: Message) -> None:
        with self._lock:
            self._state.pong(worker.generation)

    def _on_reverse(self, worker: Worker, message: Message) -> None:
        _, id, name, arguments, meta = message
        outer = worker.calls.get(meta.get("for"))
        if outer is None or outer.is_ended:
            return  # its call has ended: the worker has been told, or is about to say so itself
        request = ReverseCall(self, worker, outer, id, name, arguments, meta)
        worker.reverse[id] = request
        self._handlers.begin(request)

    def _on_reverse_cancel(self, worker: Worker, message: Message) -> None:
        request = worker.reverse.pop(message[1], None)
        if request is not None:
            request.cancel()

    def _on_reverse_credit(self, worker: Worker, message: Message) -> None:
        request = worker.reverse.get(message[1])
        if request is not None:
            request.grant(message[2])

    def _on_log(self, worker: Worker, message: Message) -> None:
        _, call, level, logger, text = message
        facts = {"pool": self.name, "worker": worker.name, "call": call, "logger": logger, "text": text}
        self._bus.emit(Name.WORKER_LOGGED, level=level, **facts)

    def _on_event(self, worker: Worker, message: Message) -> None:
        _, call, name, facts = message
        facts = {key: value for key, value in facts.items() if key not in ("name", "pool", "worker", "call", "event")}
        self._bus.emit(Name.WORKER_REPORTED, pool=self.name, worker=worker.name, call=call, event=name, **facts)

    def _on_hello(self, worker: Worker, message: Message) -> None:
        _, magic, major, _, facts = message
        worker.greeting = facts
        if magic != MAGIC or major != PROTOCOL[0]:
            mine = f"{MAGIC} {PROTOCOL[0]}"
            theirs = f"{magic} {major} (version {facts.get('worker_version')} in {facts.get('path')})"
            self._retire_for_protocol(worker, f"it speaks {theirs}, this supervisor {mine}")

    def _on_ready(self, worker: Worker, message: Message) -> None:
        self._boot_error = None
        if not self.commands:
            with self._lock:
                self.commands = message[1]
                for ticket in self._state._all_queued():  # submitted before anybody knew what the commands declare
                    ticket.use = self.commands.get(ticket.command, {}).get("session")
        self._change(lambda now: self._state.worker_ready(worker.generation, now))
        with self._changed:
            self._changed.notify_all()

    def _retire_for_protocol(self, worker: Worker, what: str) -> None:
        """What follows in its stream cannot be trusted: it goes, and its calls with it."""
        worker.protocol_error = worker.protocol_error or what
        worker.kill()

    # ============================================================================================================
    # workers: the engine's thread

    def _begin(self) -> None:
        self._engine.add_timed(self)
        self._launch_template()
        self._change(self._state.start)

    def _launch_template(self) -> None:
        if self._is_stopped:
            return
        self._is_template_warm = False
        try:
            self._template = TemplateProcess(self.config, self._engine, said=self._said, gone=self._template_gone)
        except OSError as error:
            self._template_failed(f"its template process could not be started: {error}")

    def _replace_template(self) -> None:
        """New code: the old template lives on as long as its workers, so it stays until they are replaced."""
        old = self._template
        self._launch_template()
        if old is not None:
            self._retired_templates.append(old)

    def _said(self, word: str, facts: dict[str, Any], descriptor: int | None) -> None:
        """A template's word."""
        if word == "warm":
            self._is_template_warm = True
            self._bus.emit(Name.TEMPLATE_WARMED, pool=self.name, **facts)
            todo, self._to_spawn = self._to_spawn, []
            for generation, slot in todo:
                self._spawn(generation, slot)
            return
        if word == "not_warm":
            self._template_failed(str(facts.get("message", "")), facts)
            return
        worker = self._workers.get(facts["generation"])
        if worker is None:
            return
        match word:
            case "spawned" if descriptor is not None:
                worker.watch(facts["pid"], descriptor, self._on_death)
                self._bus.emit(Name.WORKER_STARTED, pool=self.name, worker=worker.name, pid=worker.pid)
            case "not_spawned":
                worker.boot_error = {"type": "OSError", "message": facts["error"]}
                self._bury(worker)
            case "memory":
                worker.rss, worker.peak = facts["rss"], facts["peak"]
                self._change(lambda now: self._state.measured(worker.generation, facts["rss"], now))
            case "over":
                worker.over = facts
            case "exit":
                worker.exit = facts
                if worker.generation in self._dying:
                    self._bury(worker)

    def _spawn(self, generation: int, slot: int) -> None:
        if generation not in self._state.workers:
            return
        if self._template is None or not self._is_template_warm:
            self._to_spawn.append((generation, slot))
            return
        worker = Worker(generation, slot, self.config)
        self._workers[generation] = worker
        try:
            pipes = self._template.spawn(generation)
        except OSError as error:
            worker.boot_error = {"type": type(error).__name__, "message": str(error)}
            self._bury(worker)
            return
        torn = "a writer was interrupted in the middle of a frame"
        worker.attach(
            pipes,
            self._engine,
            on_output=self._on_output,
            on_torn=lambda: self._engine.call_soon(lambda: self._retire_for_protocol(worker, torn)),
        )

    def _kill(self, generation: int, reason: str) -> None:
        worker = self._workers.get(generation)
        if worker is None:  # not spawned yet: there is nothing to kill
            self._to_spawn = [pair for pair in self._to_spawn if pair[0] != generation]
            self._change(lambda now: self._state.died(generation, now, by_itself=False, cause=reason))
            return
        self._bus.emit(Name.WORKER_KILLED, pool=self.name, worker=worker.name, pid=worker.pid, reason=reason)
        worker.kill()
        if self._template is not None:
            self._template.kill(generation)
        if worker.pidfd is None:
            self._bury(worker)

    def _on_death(self, worker: Worker) -> None:
        """Its pidfd says that it is gone: read what it still had to say, then end its calls (C9)."""
        worker.stop_watching()
        while True:
            data, is_end = worker.read()
            if data:
                self._take(worker, data)
            if is_end or not data:
                break
        worker.drain_stderr()
        worker.died_at = time.monotonic()
        if worker.exit is not None or self._template is None:
            self._bury(worker)
        else:
            self._dying[worker.generation] = worker.died_at + EXIT_PATIENCE

    def _bury(self, worker: Worker) -> None:
        """End its calls, take its place from the roster, close its descriptors."""
        self._dying.pop(worker.generation, None)
        for request in tuple(worker.reverse.values()):
            request.cancel()
        worker.reverse.clear()
        was_booted = self._note_boot_failure(worker)
        with self._lock:
            record = self._state.workers.get(worker.generation)
            worker.kill_reason = record.kill_reason if record is not None else ""
            unstarted = self._unstarted(worker)
            is_by_itself = failures.is_by_itself(worker)
            cause = failures.cause_of(worker)
            self.counts["deaths"] += was_booted
            after = self._carry_out(
                self._state.died(
                    worker.generation, time.monotonic(), by_itself=is_by_itself, unstarted=unstarted, cause=cause
                )
            )
            self._workers.pop(worker.generation, None)
        worker.close()
        self._follow_up(after)
        self._drop_old_templates()
        with self._changed:
            self._changed.notify_all()

    def _unstarted(self, worker: Worker) -> set[int]:
        """The calls whose last byte it never read: they cannot have begun (C8)."""
        if worker.channel is None or worker.channel.is_closed or not worker.calls:
            return set()
        consumed = worker.channel.consumed()
        return {call.id for call in worker.calls.values() if call.frame_end > consumed}

    def _note_boot_failure(self, worker: Worker) -> bool:
        record = self._state.workers.get(worker.generation)
        if record is None or record.phase != "starting":
            return True
        self._boot_error = failures.boot_error(self.name, worker, self._template_tail())
        return False

    # -- the template's end --

    def _template_failed(self, message: str, described: dict[str, Any] | None = None) -> None:
        """No worker can start: say why to those who wait, and try again later."""
        kind = (described or {}).get("type", "")
        text = f"Pool {self.name!r} cannot start workers: {kind + ': ' if kind else ''}{message}"
        self._boot_error = WorkerBootError(text, pool=self.name, stderr_tail=self._stderr_tail())
        self._bus.emit(Name.TEMPLATE_FAILED, pool=self.name, error=kind, text=message[:500])

    def _template_gone(self) -> None:
        """The template has ended. Its workers go on; a new one replaces them as they are recycled (T6)."""
        template, self._template = self._template, None
        was_warm, self._is_template_warm = self._is_template_warm, False
        if self._is_stopped or template is None:
            return
        if not was_warm and self._boot_error is None:
            self._template_failed("its template process ended while it imported")
        if self._boot_error is not None and not was_warm:
            self._boot_error.stderr_tail = template.stderr.text()
        template.close()
        self._bus.emit(Name.TEMPLATE_LOST, pool=self.name, pid=template.pid, warm=was_warm)
        self._template_failures = 0 if was_warm else self._template_failures + 1
        first, longest = TEMPLATE_RETRY
        self._template_retry_at = time.monotonic() + min(longest, first * 2**self._template_failures)
        for generation, _ in self._to_spawn:
            self._change(lambda now, g=generation: self._state.died(g, now, cause="boot"))  # type: ignore[misc]
        self._to_spawn = []
        for worker in [w for w in self._workers.values() if w.pidfd is None]:
            self._bury(worker)
        if was_warm:
            self._change(lambda now: self._state.recycle(now, reason="template_lost"))
        with self._changed:
            self._changed.notify_all()

    def _drop_old_templates(self) -> None:
        if not self._retired_templates:
            return
        with self._lock:
            is_recycling = self._state._recycling is not None or bool(self._state._wanted)
        if not is_recycling:
            while self._retired_templates:
                self._retired_templates.pop().close()

    def _end(self, done: threading.Event) -> None:
        """Kill what is left, and close."""
        self._is_stopped = True
        for worker in tuple(self._workers.values()):
            worker.kill()
            self._bury(worker)
        templates = [*self._retired_templates, *([self._template] if self._template else [])]
        self._template = None
        for template in templates:
            template.close()
        done.set()
        with self._changed:
            self._changed.notify_all()

    # ============================================================================================================

    def _is_ready(self) -> bool:
        return any(worker.phase == "ready" for worker in tuple(self._state.workers.values()))

    def _is_idle(self) -> bool:
        with self._lock:
            return not self._state.queued and not any(w.live_calls for w in self._state.workers.values())

    def _wait_until(self, is_done: Callable[[], bool], timeout: float | None, what: str | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not is_done():
            if self._broken is not None:
                raise self._closed()
            if deadline is not None and time.monotonic() >= deadline:
                if what is None:
                    return
                raise TimeoutError(f"Pool {self.name!r} did not {what} within {timeout:g} s; it goes on.")
            with self._changed:
                self._changed.wait(0.01)

    def _stderr_tail(self) -> str:
        tails = [worker.stderr.text() for worker in self._workers.values()]
        return next((tail for tail in tails if tail), "") or self._template_tail()

    def _template_tail(self) -> str:
        return self._template.stderr.text() if self._template is not None else ""

    def _closed(self) -> PoolClosed:
        closed = PoolClosed(f"Pool {self.name!r} is closed: {self._broken or 'its supervisor was stopped'}.")
        closed.__cause__ = self._broken
        return closed


class _After:
    """What is left to do once the lock is let go."""

    __slots__ = ("channels", "ended", "later")

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.ended: list[Call] = []
        self.later: list[Instruction] = []


_NO_NOTES: dict[str, Any] = {}

_ON_MESSAGE: dict[int, Callable[[Pool, Worker, Message], None]] = {
    Kind.PONG: Pool._on_pong,
    Kind.CALL: Pool._on_reverse,
    Kind.CANCEL: Pool._on_reverse_cancel,
    Kind.CREDIT: Pool._on_reverse_credit,
    Kind.LOG: Pool._on_log,
    Kind.EVENT: Pool._on_event,
    Kind.HELLO: Pool._on_hello,
    Kind.READY: Pool._on_ready,
}

_EVENTS = {
    "worker.ready": Name.WORKER_READY,
    "worker.died": Name.WORKER_DIED,
    "worker.stopped": Name.WORKER_STOPPED,
    "worker.recycling": Name.WORKER_RECYCLING,
    "worker.retiring": Name.WORKER_RETIRING,
    "pool.degraded": Name.POOL_DEGRADED,
    "session.moved": Name.SESSION_MOVED,
    "session.lost": Name.SESSION_LOST,
    "session.expired": Name.SESSION_EXPIRED,
    "call.redispatched": Name.CALL_REDISPATCHED,
}


def _meta(deadline: float, session: str | None, credit: int | None, nested: bool, durable: bool) -> dict[str, Any]:
    """What the worker needs to know of the call beside its arguments."""
    meta: dict[str, Any] = {} if deadline == math.inf else {"deadline": deadline}
    if session is not None:
        meta["session"] = session
    if credit is not None:
        meta["credit"] = credit
    if nested:
        meta["nested"] = True
    if durable:
        meta["durable"] = True
    return meta


def _rules(config: PoolConfig) -> Rules:
    return Rules(**{name: getattr(config, name) for name in Rules.__slots__})
