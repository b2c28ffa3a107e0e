"""The worker's runtime: takes messages, runs commands, writes replies.

Threads. `LeaderFollower` decides which thread reads; see there. Commands run on the *main thread* when the pool's
`concurrency` is 1 (so that a signal can interrupt them), nested calls (made by a tool that a running call waits for)
and all others on whichever thread leads. Any thread writes frames, one at a time.

The worker leaves by `os._exit`: when its stdin ends (the supervisor is gone or has let go), after STOP once nothing
runs, and never because of what user code did.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from .bridge import Bridge, Cancelled, Command, Failure, _current
from .error_report import describe
from .leader_follower import LeaderFollower
from .memory import rlimits
from .running_call import RunningCall, Wait
from .session_state import Sessions
from .vigil import end_group
from .wire import FrameBuffer, Malformed, OverLimit, Unencodable, messages
from .wire.messages import Kind, Message

READ_SIZE = 64 * 1024  # bytes at once; a buffer over malloc's mmap threshold costs 50 us for each read
INTERRUPT_EVERY = 0.1  # seconds; user code may swallow an interrupt
REMEMBERED_IDS = 4096  # a repeated id is refused as long as it is among the last so many
CALL = int(Kind.CALL)
EXIT_BROKEN = 70  # EX_SOFTWARE of <sysexits.h>
EXIT_PROTOCOL = 76  # EX_PROTOCOL of <sysexits.h>
EXIT_MEMORY = 71  # EX_OSERR of <sysexits.h>: no memory was left to read what the supervisor says


@dataclass(frozen=True, slots=True)
class Identity:
    """Which worker this is; the supervisor says so in its HELLO."""

    pool: str
    worker: str
    generation: int


class Runtime:
    """One worker's life between READY and exit. Constructed and run on the main thread."""

    def __init__(
        self,
        bridge: Bridge,
        *,
        incoming: int,
        outgoing: int,
        lifeline: int,
        identity: Identity,
        concurrency: int,
        limit: int,
    ) -> None:
        self.bridge = bridge
        self.identity = identity
        self.sessions = Sessions()
        self._incoming = incoming
        self._readable = select.poll()
        self._readable.register(incoming, select.POLLIN)
        self._outgoing = outgoing
        self._private: tuple[int, ...] = (incoming, outgoing, lifeline)  # no child of this process may hold them
        self._is_single = concurrency == 1
        self._limit = limit
        self._write_lock = threading.Lock()
        self._running: dict[int, RunningCall] = {}
        self._recent: OrderedDict[int, None] = OrderedDict()
        self._cancelled: dict[int, RunningCall] = {}
        self._asked: dict[int, Wait] = {}
        self._next_ask = 2
        self._ask_lock = threading.Lock()
        self._is_stopping = False
        self._main = threading.main_thread().ident or 0
        self._on_main: RunningCall | None = None
        self._buffer = FrameBuffer()
        self._lead = LeaderFollower(
            read=self._read,
            handle=self._handle,
            run=self._execute,
            calls_on_main=self._is_single,
            broken=self._end_broken,
        )

    # -- main thread --

    def run(self, buffer: FrameBuffer) -> NoReturn:
        """Serve until the end of the process; `buffer` may hold what was read after the HELLO."""
        os.register_at_fork(after_in_child=self._let_go)
        if self._is_single:
            signal.signal(signal.SIGUSR1, self._interrupt_main)
        self._buffer = buffer
        self._lead.begin(self._messages(b""))

    def _end_broken(self) -> NoReturn:
        """An exception left the runtime itself: what user code did to the process (closed its descriptors, say)."""
        text = f"dspex worker {self.identity.worker}: its runtime failed\n{traceback.format_exc()}"
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="replace"))
        leave(EXIT_BROKEN)

    def _interrupt_main(self, *_: object) -> None:
        """SIGUSR1: raise only if the call that runs now is the one that was cancelled, and is inside user code."""
        running = self._on_main
        if running is not None and running.is_cancelled and running.inside:
            running.was_interrupted = True
            raise Cancelled

    # -- executing --

    def _execute(self, running: RunningCall) -> None:
        if threading.get_ident() == self._main:
            self._on_main = running  # set and cleared by this thread alone, see _interrupt_main
        try:
            kind, body = self._outcome(running)
            self._reply(running, kind, body)
        finally:
            self._settle(running)

    def about_to_wait(self) -> None:
        """The calling thread waits for the supervisor: whoever reads must be another one."""
        self._lead.step_aside()

    def _outcome(self, running: RunningCall) -> tuple[Kind, Any]:
        token = _current.set(running.context)
        try:
            value = self._run_command(running)
            return (Kind.END if running.command.is_stream else Kind.RESULT), value
        except BaseException as error:  # whatever user code raises is an answer, also SystemExit and RecursionError
            running.leave()
            if rlimits.is_exhausted(error):
                rlimits.open_reserve()
            return Kind.ERROR, error
        finally:
            _current.reset(token)

    def _run_command(self, running: RunningCall) -> Any:
        running.enter()
        try:
            produced = running.command.function(running.context, **running.arguments)
        except TypeError as error:
            raise _explained(error, running.command) from None
        finally:
            running.leave()
        return self._drain(running, produced) if running.command.is_stream else produced

    def _drain(self, running: RunningCall, stream: Any) -> Any:
        """Send what the generator yields, at the consumer's pace, and give what it returns."""
        try:
            while True:
                running.enter()
                try:
                    chunk = next(stream)
                finally:
                    running.leave()
                running.send_chunk(chunk)
        except StopIteration as end:
            return end.value
        finally:
            stream.close()

    def _reply(self, running: RunningCall, kind: Kind, body: Any) -> None:
        if kind != Kind.ERROR:
            try:
                frame = self._frame(kind, running.id, body, running.session_notes())
            except Exception as error:  # also what another thread does to the value meanwhile
                if isinstance(error, MemoryError):
                    rlimits.open_reserve()
                body = error
            else:
                self._write(frame)
                return
        self._reply_error(running, body)

    def _reply_error(self, running: RunningCall, error: BaseException) -> None:
        notes: dict[str, Any] = {}
        with contextlib.suppress(Exception):  # the first error is the one to report
            notes.update(running.session_notes() or {})
        if rlimits.is_exhausted(error):
            notes["retire"] = "memory"  # what it left half done is anybody's guess
        elif running.was_interrupted and not running.command.cancel_safe:
            notes["retire"] = "interrupted"  # it may have left a lock held
        self.send(Kind.ERROR, running.id, describe(error, running.secrets), notes or None)

    def _settle(self, running: RunningCall) -> None:
        if self._on_main is running:
            self._on_main = None
        with self._ask_lock:
            self._running.pop(running.id, None)
            self._cancelled.pop(running.id, None)
            is_last = self._is_stopping and not self._running
        running.cancel()
        if is_last:
            leave(0)

    # -- what running calls ask of the supervisor --

    def ask(self, wait: Wait, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> int:
        with self._ask_lock:
            id = self._next_ask
            self._next_ask += 2
            self._asked[id] = wait
        try:
            frame, _, _ = messages.write_call(id, name, arguments, meta, limit=self._limit)
        except (Unencodable, OverLimit):
            self._asked.pop(id, None)
            raise
        self._write(frame)
        return id

    def forget_ask(self, id: int) -> None:
        """Stop listening; if no final answer came, the supervisor may stop working on it."""
        if self._asked.pop(id, None) is not None:
            self.send(Kind.CANCEL, id)

    # -- writing: any thread --

    def send(self, kind: Kind, *fields: Any) -> None:
        """Write one message.

        Raises:
            Unencodable, OverLimit: it cannot be sent; nothing was written.
        """
        self._write(self._frame(kind, *fields))

    def _frame(self, kind: Kind, *fields: Any) -> bytes:
        return messages.write(kind, *fields, limit=self._limit, root="result")

    def _write(self, frame: bytes) -> None:
        view = memoryview(frame)
        with self._write_lock:
            while view:
                try:
                    view = view[os.write(self._outgoing, view) :]
                except OSError:
                    leave(0)  # the supervisor is gone: nobody is left to answer

    # -- reading: the leader --

    def _read(self) -> list[Message]:
        """Wait for messages; interrupt what was cancelled meanwhile."""
        if self._cancelled:
            self._interrupt_until_readable()
        try:
            self._readable.poll()  # asleep in read(), a worker that is killed would still take what comes (C8)
            data = os.read(self._incoming, READ_SIZE)
            if not data:
                end_group()  # the supervisor is gone, or has let go
            return self._messages(data)
        except MemoryError:  # a call took all there was: a worker that cannot read any more is of no use to the others
            os.write(2, b"dspex worker: no memory is left to read with\n")
            leave(EXIT_MEMORY)

    def _messages(self, data: bytes) -> list[Message]:
        try:
            return [messages.read(body) for body in self._buffer.feed(data)]
        except Malformed as error:
            self._give_up(error)

    def _handle(self, message: Message) -> RunningCall | None:
        """Give the call to run, if it is one."""
        if message[0] == CALL:
            return self._begin(message)
        try:
            self._HANDLERS[message[0]](self, message)
        except Malformed as error:
            self._give_up(error)
        return None

    def _give_up(self, error: Malformed) -> NoReturn:
        with contextlib.suppress(OSError):  # not by print: user code may have closed sys.stderr
            os.write(2, f"dspex worker {self.identity.worker}: {error}\n".encode(errors="replace"))
        leave(EXIT_PROTOCOL)

    def _begin(self, message: Message) -> RunningCall | None:
        _, id, name, arguments, meta = message
        if id in self._recent:
            self._refuse(id, "ProtocolError", f"request {id} was sent twice; it ran at most once")
            return None
        self._recent[id] = None
        if len(self._recent) > REMEMBERED_IDS:
            self._recent.popitem(last=False)
        command = self.bridge.commands.get(name)
        if command is None:
            self._refuse(id, "UnknownName", f"no command {name!r}", name=name, known=sorted(self.bridge.commands))
            return None
        running = self._running[id] = RunningCall(self, id, command, arguments, meta)
        return running

    def _on_cancel(self, message: Message) -> None:
        running = self._running.get(message[1])
        if running is not None:
            running.interrupt_at = time.monotonic() + INTERRUPT_EVERY
            self._cancelled[running.id] = running
            running.cancel()

    def _interrupt_until_readable(self) -> None:
        """Interrupt what was cancelled, again and again, until the supervisor says something or nothing is left.

        The next interrupt has its time, however often the supervisor says something in between.
        """
        poll = select.poll()
        poll.register(self._incoming, select.POLLIN)
        while cancelled := tuple(self._cancelled.values()):
            now = time.monotonic()
            for running in cancelled:
                if now >= running.interrupt_at:
                    running.interrupt_at = now + INTERRUPT_EVERY
                    self._interrupt(running)
            wait = min(running.interrupt_at for running in cancelled) - time.monotonic()
            if poll.poll(max(0.0, wait) * 1000):
                return

    def _interrupt(self, running: RunningCall) -> None:
        if self._is_single and running is self._on_main:
            signal.pthread_kill(self._main, signal.SIGUSR1)
        elif running is not self._on_main or not self._is_single:
            running.interrupt()

    def _on_answer(self, message: Message) -> None:
        is_final = message[0] != Kind.CHUNK
        wait = self._asked.pop(message[1], None) if is_final else self._asked.get(message[1])
        if wait is not None:
            wait.put(message)

    def _on_credit(self, message: Message) -> None:
        running = self._running.get(message[1])
        if running is not None:
            running.grant(message)

    def _on_ping(self, message: Message) -> None:
        self.send(Kind.PONG, message[1])

    def _on_forget(self, message: Message) -> None:
        self.sessions.forget(message[1])

    def _on_restore(self, message: Message) -> None:
        self.sessions.restore(message[2], message[3])
        self.send(Kind.RESULT, message[1], None, None)

    def _on_stop(self, message: Message) -> None:
        with self._ask_lock:
            self._is_stopping = True
            is_idle = not self._running
        if is_idle:
            leave(0)

    def _on_hello(self, message: Message) -> None:
        raise Malformed(f"{Kind(message[0]).name} is not expected here")

    def _refuse(self, id: int, kind: str, message: str, **facts: Any) -> None:
        self.send(Kind.ERROR, id, describe(Failure(kind, message, **facts)), None)

    def _let_go(self) -> None:
        """In a forked child of user code: it must not hold what ties the worker to its supervisor (T8).

        Once: a child of that child may have other files under these numbers.
        """
        private, self._private = self._private, ()
        self._outgoing = -1  # if it comes back from the command, its reply must not go into a file of its own
        self._write_lock = threading.Lock()  # another thread's, which is not here
        for descriptor in private:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    _HANDLERS: ClassVar[dict[int, Callable[[Runtime, Message], None]]] = {
        Kind.CANCEL: _on_cancel,
        Kind.RESULT: _on_answer,
        Kind.ERROR: _on_answer,
        Kind.CHUNK: _on_answer,
        Kind.END: _on_answer,
        Kind.CREDIT: _on_credit,
        Kind.PING: _on_ping,
        Kind.FORGET: _on_forget,
        Kind.RESTORE: _on_restore,
        Kind.STOP: _on_stop,
        Kind.HELLO: _on_hello,
        Kind.READY: _on_hello,
        Kind.PONG: _on_hello,
        Kind.LOG: _on_hello,
        Kind.EVENT: _on_hello,
    }


def leave(status: int) -> NoReturn:
    """End the process now: other threads may be anywhere, and joining them could take for ever."""
    with contextlib.suppress(BaseException):  # stderr may be gone, or its lock held by a thread that will not end
        sys.stderr.flush()
    os._exit(status)


def _explained(error: TypeError, command: Command) -> Exception:
    """A TypeError of the call itself (wrong arguments), told from one that the command's own code raised."""
    if error.__traceback__ is not None and error.__traceback__.tb_next is None:
        return Failure("InvalidInput", f"command {command.name!r} does not take these arguments: {error}")
    return error
