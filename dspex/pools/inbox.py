"""Dispatch messages received from workers. Runs on the engine's thread.

Nothing that a worker sends may hurt more than that worker: what is odd is refused where it is read (see `wire.shapes`),
and whatever goes wrong while a message is taken retires the worker that sent it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from dspex_worker.wire import MAGIC, PROTOCOL, Malformed, messages, shapes
from dspex_worker.wire.messages import PACKED_FROM, Kind, Message

from ..events import Bus, Name, Reports
from . import worker as workers
from .call_factory import CallFactory
from .callback_handlers import CallbackHandlers
from .callbacks import Callback
from .dispatcher import Dispatcher
from .durable_sessions import pack
from .frame_intake import PATIENCE, FrameIntake
from .processes.engine import Engine
from .processes.timers import Timer
from .worker import Worker
from .worker_output import WorkerOutput

if TYPE_CHECKING:
    from .state.instructions import Instruction

FINAL = frozenset((Kind.RESULT, Kind.ERROR, Kind.END))
CHUNK = int(Kind.CHUNK)
REPORTS_MOST = 32 * 1024 * 1024  # bytes of one pool's events and log lines that wait to be delivered


class Inbox:
    """The messages from one pool's workers."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        call_factory: CallFactory,
        handlers: CallbackHandlers,
        engine: Engine,
        bus: Bus,
    ) -> None:
        self._dispatcher = dispatcher
        self._call_factory = call_factory
        self._bus = bus
        self._callbacks = handlers.of_pool(dispatcher, bus)
        self._reports = Reports(REPORTS_MOST)
        self._intake = FrameIntake(pause=lambda worker: worker.pause(), resume=lambda worker: worker.resume())
        self._late = Timer(engine.timers, self._retire_late)
        self._output = WorkerOutput(engine, self._report_output)

    def on_output(self, worker: Worker) -> None:
        """Read what the worker's stdout has."""
        data, _ = worker.read()
        if data:
            self._take(worker, data)

    def drain(self, worker: Worker) -> None:
        """Take all that a dead worker still sent (C9)."""
        is_end = False
        while not is_end:
            data, is_end = worker.read()
            if not data:
                break
            self._take(worker, data)
        self._note_unfinished(worker, 0, is_new=False)

    def watch_output(self, worker: Worker) -> None:
        """Log what the worker writes to its stderr."""
        worker.see_output = lambda data: self._output.printed(worker, data)

    def end_output(self, worker: Worker) -> None:
        """Log what is left of a worker that has ended."""
        self._output.ended(worker)

    def retire(self, worker: Worker, what: str) -> None:
        """Retire a worker whose stream cannot be trusted any more, and end its calls."""
        worker.protocol_error = worker.protocol_error or what
        worker.kill()
        worker.buffer.clear()
        self._note_unfinished(worker, 0, is_new=False)

    def _retire_late(self, now: float) -> None:
        for worker in self._intake.late(now):
            self.retire(worker, f"it left a large frame unfinished for {PATIENCE:g} s while others waited for the room")
        self._late.set(self._intake.due)

    def _note_unfinished(self, worker: Worker, size: int, *, is_new: bool) -> None:
        """Note how many bytes of the worker's wait for the rest of their frame."""
        self._intake.note(worker, size, monotonic(), is_new=is_new)
        if self._intake.due != self._late.due:
            self._late.set(self._intake.due)

    # ============================================================================================================

    def _take(self, worker: Worker, data: bytes) -> None:
        if worker.protocol_error:
            return
        answers: list[Message] = []
        try:
            self._read(worker, data, answers)
        except Malformed as error:
            self.retire(worker, str(error))
        except Exception as error:  # unforeseen: it costs this worker, not the engine
            self._retire_for(worker, error)
        if answers:
            self._deliver(worker, answers)

    def _read(self, worker: Worker, data: bytes, answers: list[Message]) -> None:
        """Handle messages that are no answers, and collect the answers to be delivered together."""
        is_new = False
        for body in worker.buffer.feed(data):
            is_new = True
            message = messages.read(body)
            worker.message_order.take(message)
            shapes.require(message)
            kind = message[0]
            if kind in FINAL:
                self._prepare(worker, message, answers, body)
            elif kind == CHUNK:
                self._on_chunk(worker, message, body)
            else:
                _ON_MESSAGE[kind](self, worker, message, len(body))
        size = worker.buffer.pending
        if size or self._intake.held:
            self._note_unfinished(worker, size, is_new=is_new)

    def _prepare(self, worker: Worker, message: Message, answers: list[Message], body: bytes) -> None:
        if message[1] == 0:
            worker.boot_error = message[2]
            return
        notes = message[3]
        if notes and notes.get("wrote"):
            notes["wrote"] = pack(notes["wrote"])
        if len(body) > PACKED_FROM and message[0] != Kind.ERROR:
            call = worker.calls.get(message[1])
            if call is not None and call.keeps_packed:
                message[2] = messages.value_in(body)
        answers.append(message)

    def _deliver(self, worker: Worker, answers: list[Message]) -> None:
        try:
            self._dispatcher.deliver(worker, answers)
        except Malformed as error:
            self.retire(worker, str(error))
        except Exception as error:  # unforeseen: it costs this worker, not the engine
            self._retire_for(worker, error)

    def _retire_for(self, worker: Worker, error: Exception) -> None:
        """Retire the worker after an unforeseen exception: it must never end the engine, which others need."""
        logging.getLogger("dspex").error("what worker %s sent could not be taken", worker.name, exc_info=error)
        self.retire(worker, f"what it sent could not be taken ({type(error).__name__})")

    # -- streams and callbacks --

    def _on_chunk(self, worker: Worker, message: Message, body: bytes) -> None:
        call = worker.calls.get(message[1])
        if call is None or call.is_ended:
            return
        if call.stream is None:
            raise Malformed("it sent a chunk of a call that wants none")
        is_packed = call.keeps_packed and len(body) > PACKED_FROM
        call.stream.receive(messages.value_in(body) if is_packed else message[2])

    def _on_callback(self, worker: Worker, message: Message, size: int) -> None:
        if message[1] in worker.callbacks:
            raise Malformed(f"it made its callback {message[1]} twice")
        self._require_reader(worker)
        outer = worker.calls.get(message[4]["for"])
        if outer is None or outer.is_ended:
            return  # its call has ended: the worker knows, or is about to report its end
        request = Callback(self._dispatcher, worker, outer, message, size)
        worker.callbacks[request.id] = request
        self._callbacks.begin(request)

    def _on_callback_cancel(self, worker: Worker, message: Message, size: int) -> None:
        request = worker.callbacks.get(message[1])
        if request is not None:
            request.cancel()

    def _on_callback_credit(self, worker: Worker, message: Message, size: int) -> None:
        self._require_reader(worker)
        request = worker.callbacks.get(message[1])
        if request is not None:
            request.grant(message[2])

    def _require_reader(self, worker: Worker) -> None:
        """Check that the worker reads its answers: else they would fill the memory here."""
        unread = worker.unread_answers()
        if unread > workers.UNREAD_MOST:
            raise Malformed(f"it asks for more, and has left {unread:,} bytes of answers unread")

    # -- what a worker reports of itself --

    def _on_hello(self, worker: Worker, message: Message, size: int) -> None:
        _, magic, major, _, facts = message
        worker.greeting = facts
        if magic != MAGIC or major != PROTOCOL[0]:
            mine = f"{MAGIC} {PROTOCOL[0]}"
            theirs = f"{magic[:40]} {major} (version {facts.get('worker_version')} in {facts.get('path')})"
            raise Malformed(f"it speaks {theirs}, this supervisor {mine}")

    def _on_ready(self, worker: Worker, message: Message, size: int) -> None:
        def ready(now: float) -> list[Instruction]:
            self._dispatcher.boot_error = None
            self._call_factory.set_commands(message[1], worker.generation)
            return self._dispatcher.state.worker_ready(worker.generation, now)

        if worker.pidfd is None:  # no call is sent to it before its end can be seen
            worker.watch_reported_pid()
        self._dispatcher.change(ready)
        self._dispatcher.changes.notify()

    def _on_pong(self, worker: Worker, message: Message, size: int) -> None:
        def pong(now: float) -> list[Instruction]:
            self._dispatcher.state.pong(worker.generation)
            return []

        self._dispatcher.change(pong)

    def _on_log(self, worker: Worker, message: Message, size: int) -> None:
        _, call, level, logger, text = message
        self._output.logged(worker, call, level, logger, text, size)

    def _report_output(self, worker: Worker, size: int, facts: dict[str, object]) -> None:
        self._report(worker, size, Name.WORKER_LOGGED, facts)

    def _on_event(self, worker: Worker, message: Message, size: int) -> None:
        _, call, name, facts = message
        self._report(worker, size, Name.WORKER_REPORTED, {**facts, "call": call, "event": name})

    def _report(self, worker: Worker, size: int, name: Name, facts: dict[str, object]) -> None:
        self._bus.report(self._reports, size, name, facts, pool=self._dispatcher.name, worker=worker.name)


_ON_MESSAGE: dict[int, Callable[[Inbox, Worker, Message, int], None]] = {
    Kind.PONG: Inbox._on_pong,
    Kind.CALL: Inbox._on_callback,
    Kind.CANCEL: Inbox._on_callback_cancel,
    Kind.CREDIT: Inbox._on_callback_credit,
    Kind.LOG: Inbox._on_log,
    Kind.EVENT: Inbox._on_event,
    Kind.HELLO: Inbox._on_hello,
    Kind.READY: Inbox._on_ready,
}
