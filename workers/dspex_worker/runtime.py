"""Serve one worker: read messages, start commands, answer requests to the worker itself.

Threads. `LeaderFollower` decides which thread reads; see there. Commands run on the *main thread* when the pool's
`concurrency` is 1 (so that a signal can interrupt them), nested calls (made by a tool that a running call waits for)
and all others on whichever thread leads. Any thread writes frames, one at a time.

The worker leaves by `os._exit`: when its stdin ends (the supervisor is gone or has let go), after STOP once nothing
runs and it is torn down (`teardown`), and never because of what user code did.
"""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from . import stack_dump
from .bridge import Bridge
from .context import Identity
from .error_report import describe
from .execution import execute
from .exits import EXIT_BROKEN, leave, report
from .failure import Failure
from .frame_writer import FrameWriter
from .interrupter import Interrupter
from .leader_follower import LeaderFollower
from .message_reader import MessageReader
from .output_log import OutputLog
from .parent_calls import PendingCallbacks
from .running_call import RunningCall
from .session_state import Sessions
from .teardown import Teardown
from .wire import Malformed
from .wire.messages import Kind, Message

REMEMBERED_IDS = 4096  # a repeated id is refused as long as it is among the last so many
CALL = int(Kind.CALL)


class Runtime:
    """One worker's life between READY and exit. Constructed and run on the main thread."""

    def __init__(
        self,
        bridge: Bridge,
        *,
        identity: Identity,
        reader: MessageReader,
        writer: FrameWriter,
        private: tuple[int, ...],
        concurrency: int,
        output: OutputLog,
        teardown: Teardown,
        stacks: int,
    ) -> None:
        """`private` are the descriptors that no child of this process may hold."""
        self.bridge = bridge
        self.identity = identity
        self.sessions = Sessions()
        self.writer = writer
        self._output = output
        self._teardown = teardown
        self._stacks = stacks
        self.callbacks = PendingCallbacks(writer)
        self._reader = reader
        self._private = private
        self._running: dict[int, RunningCall] = {}
        self._recent: OrderedDict[int, None] = OrderedDict()
        self._is_stopping = False
        self._stop_lock = threading.Lock()  # whether the last call ends after STOP, or STOP comes after the last call
        self._interrupter = Interrupter(calls_on_main=concurrency == 1)
        self._leadership = LeaderFollower(self, calls_on_main=concurrency == 1)

    def serve(self) -> NoReturn:
        """Serve until the end of the process."""
        os.register_at_fork(after_in_child=self._let_go)
        self._interrupter.install()
        self._leadership.begin(self._reader.parse(b""))

    # -- the leader: see `MessageSource` --

    def read(self) -> list[Message]:
        """Wait for messages; interrupt what was cancelled meanwhile."""
        if self._interrupter.cancelled:
            self._interrupter.work_until(self._reader.readable)
        return self._reader.read()

    def handle(self, message: Message) -> RunningCall | None:
        """Act on a message, and return the call to run if it is one."""
        if message[0] == CALL:
            return self._begin(message)
        try:
            self._HANDLERS[message[0]](self, message)
        except Malformed as error:
            self._reader.refuse(error)
        return None

    def run(self, running: RunningCall) -> None:
        """Run a call to its reply."""
        self._interrupter.begin(running)
        try:
            execute(running, self.writer)
        finally:
            self._output.end_call(running.id)
            self._end(running)

    def fail(self) -> NoReturn:
        """End the worker: an exception left the runtime itself (user code closed its descriptors, say)."""
        report(f"dspex worker {self.identity.worker}: its runtime failed\n{traceback.format_exc()}")
        leave(EXIT_BROKEN)

    # -- a running call --

    def about_to_wait(self) -> None:
        """Let another thread read: the calling one is about to wait for the supervisor."""
        self._leadership.step_aside()

    def _end(self, running: RunningCall) -> None:
        self._interrupter.end(running)
        with self._stop_lock:
            self._running.pop(running.id, None)
            is_last = self._is_stopping and not self._running
        running.cancel()
        if is_last:
            self._teardown.begin()

    # -- messages --

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

    def _refuse(self, id: int, kind: str, message: str, **facts: Any) -> None:
        self.writer.send(Kind.ERROR, id, describe(Failure(kind, message, **facts)), None)

    def _on_cancel(self, message: Message) -> None:
        running = self._running.get(message[1])
        if running is not None:
            self._interrupter.cancel(running)

    def _on_answer(self, message: Message) -> None:
        self.callbacks.deliver(message)

    def _on_credit(self, message: Message) -> None:
        running = self._running.get(message[1])
        if running is not None:
            running.grant(message)

    def _on_ping(self, message: Message) -> None:
        self.writer.send(Kind.PONG, message[1])

    def _on_drop_session(self, message: Message) -> None:
        self.sessions.drop(message[1])

    def _on_restore(self, message: Message) -> None:
        self.sessions.restore(message[2], message[3])
        self.writer.send(Kind.RESULT, message[1], None, None)

    def _on_stop(self, message: Message) -> None:
        with self._stop_lock:
            self._is_stopping = True
            is_idle = not self._running
        if is_idle:
            self._teardown.begin()

    def _on_stacks(self, message: Message) -> None:
        stack_dump.write(self._stacks, message[1])

    def _on_unexpected(self, message: Message) -> None:
        raise Malformed(f"{Kind(message[0]).name} is not expected here")

    _HANDLERS: ClassVar[dict[int, Callable[[Runtime, Message], None]]] = {
        Kind.CANCEL: _on_cancel,
        Kind.RESULT: _on_answer,
        Kind.ERROR: _on_answer,
        Kind.CHUNK: _on_answer,
        Kind.END: _on_answer,
        Kind.CREDIT: _on_credit,
        Kind.PING: _on_ping,
        Kind.DROP: _on_drop_session,
        Kind.RESTORE: _on_restore,
        Kind.STOP: _on_stop,
        Kind.STACKS: _on_stacks,
        Kind.HELLO: _on_unexpected,
        Kind.READY: _on_unexpected,
        Kind.PONG: _on_unexpected,
        Kind.LOG: _on_unexpected,
        Kind.EVENT: _on_unexpected,
    }

    # -- a forked child of user code --

    def _let_go(self) -> None:
        """Close all that ties the worker to its supervisor (T8).

        Once: a child of that child may have other files under these numbers.
        """
        private, self._private = self._private, ()
        self.writer.after_fork()
        stack_dump.forget()
        for descriptor in private:
            with contextlib.suppress(OSError):
                os.close(descriptor)
