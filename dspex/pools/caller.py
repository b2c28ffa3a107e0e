"""Submit a pool's calls and wait for them, in a thread or on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dspex_worker.wire import Packed, messages
from dspex_worker.wire.messages import Kind

from ..errors import CallCancelled
from .call import Call
from .call_client import CallClient
from .call_factory import CallFactory
from .call_verbs import CallKeywords, StreamKeywords, require_known
from .dispatcher import Dispatcher
from .ownership import Ownership
from .streams import CREDIT, AsyncStream, Stream, StreamBuffer

Arguments = dict[str, Any] | Packed | None
Cancel = Callable[[Callable[[], None]], Callable[[], None]]


class Caller:
    """The callers' side of one pool. Any thread."""

    def __init__(self, dispatcher: Dispatcher, call_factory: CallFactory, ownership: Ownership) -> None:
        self._dispatcher = dispatcher
        self._call_factory = call_factory
        self._ownership = ownership
        self.check_own_process = ownership.check_own_process  # for streams: asked for each chunk

    # -- calls --

    def invoke(
        self,
        command: str,
        arguments: Arguments,
        options: CallKeywords,
        cancel: Cancel | None = None,
        *,
        is_trusted: bool = True,
    ) -> Call:
        """Run the command and return its ended call; blocks."""
        call = self.make(command, arguments, options, is_trusted=is_trusted)
        call.wait_in_thread()
        take_back = None
        try:
            self._dispatcher.submit(call)
            if cancel is not None:
                take_back = cancel(lambda: self.cancel(call))
            if not call.is_ended and not call.wait():
                self._dispatcher.expire(call)
        except BaseException:  # a signal handler's: the call may have been sent, and nobody waits (C6)
            self._dispatcher.recover(call)
            raise
        finally:
            if take_back is not None:
                take_back()
        return call

    async def ainvoke(
        self,
        command: str,
        arguments: Arguments,
        options: CallKeywords,
        *,
        keeps_packed: bool = False,
        is_trusted: bool = True,
        client: CallClient | None = None,
    ) -> Call:
        """`invoke`, awaited; with `keeps_packed` a large value stays packed, for who only passes it on."""
        call = self.make(command, arguments, options, is_trusted=is_trusted, client=client)
        call.keeps_packed = keeps_packed
        future = call.wait_in_loop(self._dispatcher.loop_batches)
        try:  # no await stands between submitting and waiting (C6)
            self._dispatcher.submit(call)
            if not call.is_ended:
                await future
        except BaseException:  # CancelledError too: the call may have been sent, and nobody waits
            self._dispatcher.recover(call)
            raise
        return call

    def make(
        self,
        command: str,
        arguments: Arguments,
        options: CallKeywords | StreamKeywords,
        shape: Any = CallKeywords,
        credit: int | None = None,
        *,
        is_trusted: bool = True,
        client: CallClient | None = None,
    ) -> Call:
        """Return the call, encoded and ready to be submitted.

        Raises:
            ForkedSupervisor, PoolClosed: see `Ownership.check_usable`.
            UnknownName, InvalidInput, EncodeError, FrameTooLarge, WouldDeadlock: it can never run.
        """
        self._ownership.check_usable()
        if options:
            require_known(options, shape)
        return self._call_factory.make(command, arguments, options, credit, is_trusted=is_trusted, client=client)

    def cancel(self, call: Call) -> None:
        """End a call from another thread than its caller's: that one gets CallCancelled."""
        self.end(call, by="another thread of its caller")

    def end(self, call: Call, *, by: str) -> bool:
        """End a call for somebody else than its caller, who gets CallCancelled; False if it had ended."""
        text = f"The call {call.command!r} in pool {self._dispatcher.name!r} was cancelled by {by}."
        return self._dispatcher.give_up(call, CallCancelled(text), "cancelled", wakes=True)

    # -- streams --

    def stream(self, command: str, arguments: Arguments, options: StreamKeywords, *, is_trusted: bool = True) -> Stream:
        """Run a streaming command, to be read by a thread."""
        call, buffer = self._make_stream(command, arguments, options, None, is_trusted=is_trusted)
        stream = Stream(call, buffer, self._grant, self)
        self._submit_stream(call)
        return stream

    def astream(
        self,
        command: str,
        arguments: Arguments,
        options: StreamKeywords,
        *,
        keeps_packed: bool = False,
        is_trusted: bool = True,
        client: CallClient | None = None,
    ) -> AsyncStream:
        """Run a streaming command, to be read by a coroutine of the running loop."""
        loop = asyncio.get_running_loop()
        call, buffer = self._make_stream(command, arguments, options, loop, is_trusted=is_trusted, client=client)
        call.keeps_packed = keeps_packed
        stream = AsyncStream(call, buffer, self._grant, self)
        self._submit_stream(call)
        return stream

    def _make_stream(
        self,
        command: str,
        arguments: Arguments,
        options: StreamKeywords,
        loop: asyncio.AbstractEventLoop | None,
        *,
        is_trusted: bool = True,
        client: CallClient | None = None,
    ) -> tuple[Call, StreamBuffer]:
        call = self.make(command, arguments, options, StreamKeywords, CREDIT, is_trusted=is_trusted, client=client)
        buffer = call.stream = StreamBuffer(loop)
        return call, buffer

    def _submit_stream(self, call: Call) -> None:
        try:
            self._dispatcher.submit(call)
        except BaseException:  # a signal handler's, as in `invoke`
            self._dispatcher.recover(call)
            raise
        if call.is_ended and call.stream is not None:  # refused
            call.stream.finish()

    def _grant(self, call: Call, count: int) -> None:
        """Let the worker send `count` more chunks: the stream's consumer took as many."""
        if call.stream is not None:
            call.stream.allow(count)  # before the worker can know
        worker = self._dispatcher.workers.get(call.generation)
        if worker is not None:
            self._dispatcher.post(worker, messages.write(Kind.CREDIT, call.id, count))

    # -- what a stream asks for while it is read: see `StreamPool` --

    def expire(self, call: Call) -> None:
        """End a call whose deadline has passed; nothing if it has an outcome already (C7)."""
        self._dispatcher.expire(call)

    def abandon(self, call: Call) -> None:
        """End a call that nobody waits for any more."""
        if not self._ownership.is_forked:
            self._dispatcher.give_up(call, None, "cancelled", wakes=True)

    def abandon_later(self, call: Call) -> None:
        """`abandon` for finalizers: takes no lock (C11)."""
        self._dispatcher.recover(call)
