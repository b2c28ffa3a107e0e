"""Build a call from its caller's arguments. Runs in the caller's thread, before any lock (C1)."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import OverLimit, Packed, Unencodable, messages

from .. import spans
from ..errors import EncodeError, FrameTooLarge, InvalidInput, UnknownName, WouldDeadlock
from .call import Call, next_id
from .call_client import CallClient
from .call_verbs import CallKeywords, StreamKeywords
from .nesting import outer_calls

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

NOTHING: dict[str, Any] = {}


class CallFactory:
    """Builds the calls of one pool; has its commands once a worker has reported them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.commands: dict[str, dict[str, Any]] = {}
        self._commands_generation = 0  # the generation that reported them
        self._dispatcher = dispatcher

    def make(
        self,
        command: str,
        arguments: dict[str, Any] | Packed | None,
        options: CallKeywords | StreamKeywords,
        credit: int | None = None,
        *,
        is_trusted: bool = True,
        client: CallClient | None = None,
    ) -> Call:
        """Return the call, encoded and ready to be submitted; `credit` is of a stream's chunks.

        A trusted call is one that this process makes by itself: its worker may import what it names. `client` is whom
        another is made for.

        Raises:
            InvalidInput, UnknownName, EncodeError, FrameTooLarge, WouldDeadlock: it can never run; nothing is sent.
        """
        dispatcher = self._dispatcher
        declared = self._declared(command)
        session, timeout = options.get("session"), options.get("timeout")
        timeout = dispatcher.config.call_timeout if timeout is None else timeout
        now = monotonic()
        deadline = now + timeout
        if not (arguments is None or isinstance(arguments, dict | Packed)) or deadline != deadline:
            raise _misfit(command, arguments, timeout)
        outers = outer_calls(dispatcher)
        is_nested = bool(outers)
        meta: dict[str, Any] = {} if deadline == inf else {"deadline": deadline}
        is_durable = False
        if session is not None:
            is_durable = dispatcher.is_durable(session)
            meta["session"] = session
            meta["durable"] = is_durable
        if credit is not None:
            meta["credit"] = credit
        if is_nested:
            meta["nested"] = True
        if is_trusted:
            meta["trusted"] = True
        id = next_id()
        frame, start, end = _encode(
            id, command, NOTHING if arguments is None else arguments, meta, dispatcher.config.frame_limit
        )
        call = Call(
            id,
            command,
            frame=frame,
            arguments_start=start,
            arguments_end=end,
            timeout=timeout,
            made_at=now,
            deadline=deadline,
            session=session,
            use=declared.get("session"),
            retries=1 if options.get("idempotent") else 0,
            is_nested=is_nested,
            is_durable=is_durable,
            is_trusted=is_trusted,
            client=client,
        )
        if outers:
            call.generation = outers[0].generation
            self._require_no_deadlock(call, outers)
        if spans.source is not None:
            call.span = spans.source.call(dispatcher.name, command, id, call.context)
        return call

    def set_commands(self, commands: dict[str, dict[str, Any]], generation: int) -> None:
        """Take a worker's report of its commands; the latest counts. The pool's lock is held."""
        if generation < self._commands_generation:
            return
        self._commands_generation = generation
        if commands != self.commands:
            self.commands = commands
            # Queued calls may have been submitted before it was known what the commands declare.
            for call in self._dispatcher.state.queued_calls():
                call.use = commands.get(call.command, NOTHING).get("session")

    def _declared(self, command: str) -> dict[str, Any]:
        if not isinstance(command, str):
            raise InvalidInput(f"A command's name is text, not {type(command).__name__}.", field="command")
        if not self.commands:
            return NOTHING
        try:
            return self.commands[command]
        except KeyError:
            raise UnknownName("command", command, self.commands, where=f"pool {self._dispatcher.name!r}") from None

    def _require_no_deadlock(self, call: Call, outers: list[Call]) -> None:
        """A nested call runs beside its outer calls; in another session it may only use room that is free (C14)."""
        if call.session is None or any(call.session == outer.session for outer in outers):
            return
        call.is_nested = False
        with self._dispatcher.lock:
            has_room = self._dispatcher.state.has_room(call.session)
        if not has_room:
            raise WouldDeadlock(
                f"A tool of {outers[0].command!r} calls {call.command!r} in session {call.session_name!r} of its own "
                f"pool {self._dispatcher.name!r}, which has no free slot for it: it could only wait for itself. Use "
                f"the outer call's session, another pool, or a larger size."
            )


def _misfit(command: str, arguments: object, timeout: float) -> InvalidInput:
    if timeout != timeout:
        return InvalidInput(f"The timeout of {command!r} is {timeout}: give seconds, or math.inf.", field="timeout")
    given = type(arguments).__name__
    return InvalidInput(f"The arguments of {command!r} must be a dict by name, not {given}.", field="arguments")


def _encode(
    id: int, command: str, arguments: dict[str, Any] | Packed, meta: dict[str, Any], limit: int
) -> tuple[bytes, int, int]:
    try:
        return messages.write_call(id, command, arguments, meta, limit=limit)
    except Unencodable as error:
        raise EncodeError(error.path, error.type_name, error.reason) from None
    except OverLimit as error:
        raise FrameTooLarge("parent", error.limit, error.actual, what=error.what) from None
