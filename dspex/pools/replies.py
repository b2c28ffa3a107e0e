"""Replies: what workers say, taken in batches and handed to whom it concerns. Runs on the engine's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dspex_worker.wire import MAGIC, PROTOCOL, Malformed, messages
from dspex_worker.wire.messages import Kind, Message

from ..events import Bus, Name
from .desk import Desk
from .requests import Requests
from .reverse import Handlers, ReverseCall
from .worker import Worker

if TYPE_CHECKING:
    from .instructions import Instruction

FINAL = frozenset((Kind.RESULT, Kind.ERROR, Kind.END))
CHUNK = int(Kind.CHUNK)
RESERVED = frozenset(("name", "pool", "worker", "call", "event"))  # an event's facts must not hide who sent it


class Replies:
    """The incoming half of one pool."""

    def __init__(self, desk: Desk, requests: Requests, handlers: Handlers, bus: Bus) -> None:
        self._desk = desk
        self._requests = requests
        self._handlers = handlers
        self._bus = bus

    def on_output(self, worker: Worker) -> None:
        """Its stdout has something."""
        data, _ = worker.read()
        if data:
            self._take(worker, data)

    def drain(self, worker: Worker) -> None:
        """It is dead: take all that it still said (C9)."""
        is_end = False
        while not is_end:
            data, is_end = worker.read()
            if not data:
                return
            self._take(worker, data)

    def retire(self, worker: Worker, what: str) -> None:
        """What follows in its stream cannot be trusted: it goes, and its calls with it."""
        worker.protocol_error = worker.protocol_error or what
        worker.kill()

    def _take(self, worker: Worker, data: bytes) -> None:
        if worker.protocol_error:
            return
        answers: list[Message] = []
        try:
            for body in worker.buffer.feed(data):
                message = messages.read(body)
                kind = message[0]
                if kind in FINAL:
                    answers.append(message)
                    if message[1] == 0:
                        worker.boot_error = message[2]
                elif kind == CHUNK:
                    self._on_chunk(worker, message)
                else:
                    self._handle(worker, message)
        except Malformed as error:
            self.retire(worker, str(error))
        if answers:
            self._desk.settle(worker, answers)

    def _handle(self, worker: Worker, message: Message) -> None:
        handler = _ON_MESSAGE.get(message[0])
        if handler is None:
            raise Malformed(f"a worker does not send {Kind(message[0]).name}")
        handler(self, worker, message)

    # -- streams and reverse calls --

    def _on_chunk(self, worker: Worker, message: Message) -> None:
        call = worker.calls.get(message[1])
        if call is not None and call.stream is not None and not call.is_ended:
            call.stream.put(message[2])

    def _on_reverse(self, worker: Worker, message: Message) -> None:
        _, id, name, arguments, meta = message
        outer = worker.calls.get(meta.get("for"))
        if outer is None or outer.is_ended:
            return  # its call has ended: the worker has been told, or is about to say so itself
        request = ReverseCall(self._desk, worker, outer, id, name, arguments, meta)
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

    # -- what a worker says of itself --

    def _on_hello(self, worker: Worker, message: Message) -> None:
        _, magic, major, _, facts = message
        worker.greeting = facts
        if magic != MAGIC or major != PROTOCOL[0]:
            mine = f"{MAGIC} {PROTOCOL[0]}"
            theirs = f"{magic} {major} (version {facts.get('worker_version')} in {facts.get('path')})"
            self.retire(worker, f"it speaks {theirs}, this supervisor {mine}")

    def _on_ready(self, worker: Worker, message: Message) -> None:
        def ready(now: float) -> list[Instruction]:
            self._desk.boot_error = None
            self._requests.learn(message[1], worker.generation)
            return self._desk.state.worker_ready(worker.generation, now)

        if worker.pidfd is None:  # nobody gets its calls before its end can be seen
            worker.watch_by_its_word()
        self._desk.change(ready)
        self._desk.notify()

    def _on_pong(self, worker: Worker, message: Message) -> None:
        def pong(now: float) -> list[Instruction]:
            self._desk.state.pong(worker.generation)
            return []

        self._desk.change(pong)

    def _on_log(self, worker: Worker, message: Message) -> None:
        _, call, level, logger, text = message
        facts = {"pool": self._desk.name, "worker": worker.name, "call": call, "logger": logger, "text": text}
        self._bus.emit(Name.WORKER_LOGGED, level=level, **facts)

    def _on_event(self, worker: Worker, message: Message) -> None:
        _, call, name, facts = message
        facts = {key: value for key, value in facts.items() if key not in RESERVED}
        who = {"pool": self._desk.name, "worker": worker.name, "call": call}
        self._bus.emit(Name.WORKER_REPORTED, event=name, **who, **facts)


_ON_MESSAGE: dict[int, Callable[[Replies, Worker, Message], None]] = {
    Kind.PONG: Replies._on_pong,
    Kind.CALL: Replies._on_reverse,
    Kind.CANCEL: Replies._on_reverse_cancel,
    Kind.CREDIT: Replies._on_reverse_credit,
    Kind.LOG: Replies._on_log,
    Kind.EVENT: Replies._on_event,
    Kind.HELLO: Replies._on_hello,
    Kind.READY: Replies._on_ready,
}
