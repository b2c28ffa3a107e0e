"""Answer what a service asks this client for its calls: tools, metrics, rewards, observers, and its own LMs.

They run as callbacks of the process's own workers do: in the contextvars of who made the call, on threads or a loop of
the client's, within the same limits. What hangs holds up this client's calls alone.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import Any, cast

from dspex_worker.wire import Malformed

from ..events import Event, Name, write_log
from ..pools.callback_handlers import CallbackHandlers, CallbackRunner
from ..pools.callbacks import Callback, Handler
from .client_connection import ClientConnection
from .client_request import ClientRequest
from .protocol import Kind, Message

_answering: ContextVar[tuple[ClientConnection, int] | None] = ContextVar("dspex_answered_callback", default=None)


def answered_within(connection: ClientConnection) -> int | None:
    """Return the number of the callback that this code answers, if the connection's service asked for it."""
    found = _answering.get()
    return found[1] if found is not None and found[0] is connection else None


class CallbackAnswers:
    """The answers of one client."""

    name = "service"  # as a pool: see `Callback`

    def __init__(self) -> None:
        self.handlers = CallbackHandlers()
        self._runner = CallbackRunner(self.name, self.handlers, cast(Any, LogOnly()))
        self._askers: dict[ClientConnection, Asker] = {}

    def register(self, name: str, handler: Handler) -> None:
        """Answer the callbacks `name` with `handler(request)`; calls that it makes are nested in the one it serves."""
        self.handlers.register(name, _nesting(handler))

    def take(self, connection: ClientConnection, message: Message, outer: ClientRequest | None, size: int) -> None:
        """Take a message of the service. In the connection's thread.

        Raises:
            Malformed: it gave more credit than it may.
        """
        asker = self._askers.get(connection)
        if asker is None:
            self._askers = {known: one for known, one in self._askers.items() if known.is_open}
            asker = self._askers[connection] = Asker(connection)
        if message[0] != Kind.CALL:
            if (request := asker.callbacks.get(message[1])) is not None:
                request.cancel() if message[0] == Kind.CANCEL else request.grant(message[2])
            return
        if outer is None or outer.call is None:
            return  # its call has ended here: the service knows, or will in a moment
        if message[1] in asker.callbacks:
            raise Malformed(f"it made its callback {message[1]} twice")
        request = Callback(cast(Any, self), cast(Any, asker), cast(Any, outer.call), message, size)
        asker.callbacks[request.id] = request
        self._runner.begin(request)

    def end(self, connection: ClientConnection) -> None:
        """Cancel what the service of this connection asked for: it does not wait for it any more."""
        asker = self._askers.pop(connection, None)
        for request in tuple(asker.callbacks.values()) if asker is not None else ():
            request.cancel()

    def post(self, asker: Asker, frame: bytes) -> None:
        """Send a message of an answer; as a pool: see `Callback`."""
        asker.connection.post(frame)

    def stop(self) -> None:
        """Let its threads end."""
        self._runner.stop()


class Asker:
    """The other side of one connection, as callbacks see their worker."""

    generation = 0
    name = "service"

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frame_limit = connection.frame_limit
        self.callbacks: dict[int, Callback] = {}

    def unread_answers(self) -> int:
        """The bytes of answers that wait to be written."""
        return self.connection.unwritten


class LogOnly:
    """Events that have no subscribers here."""

    def emit(self, name: Name, /, **facts: Any) -> None:
        """Log an event."""
        write_log(Event(name, facts))


def _nesting(handler: Handler) -> Handler:
    """Return the handler, with what it is asked for in a context variable."""

    def noted(request: Callback) -> None:
        _answering.set((cast(Any, request.worker).connection, request.id))

    if inspect.iscoroutinefunction(handler):

        async def aanswer(request: Callback) -> Any:
            noted(request)
            return await handler(request)

        return aanswer

    def answer(request: Callback) -> Any:
        noted(request)
        return handler(request)

    return answer
