"""Show the calls that run or wait in a pool, and end one of them. Any thread; nothing here costs a call anything.

A row holds names and times, never what a call was given. How many rows there are is bounded by whoever asks, and how
much is read for them by `READ_MOST`.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import msgpack

from ..lm.redaction import redact
from ..terminal_text import inert_line
from .call import Call
from .calling_client import LOCAL, calling_client
from .state.records import Phase

if TYPE_CHECKING:
    from .caller import Caller
    from .dispatcher import Dispatcher

ROWS_MOST = 1000
NAME_MOST = 200  # characters of a name in a row
READ_MOST = 16 * 1024 * 1024  # bytes of arguments that one look goes through for the names of programs


class CallRow(TypedDict):
    """One call that runs or waits.

    `phase` "waiting" is behind another call of its session, "cancelled" is a call that nobody waits for and that goes
    on. `age_s` counts from the call's making, `deadline_s` is what is left (None: it has none). `program` is the module
    that the call runs, where it is one; `worker` is empty while it waits. `client` is "local" for this process itself.
    """

    id: int
    pool: str
    command: str
    program: str
    phase: Literal["queued", "waiting", "running", "cancelled"]
    age_s: float
    deadline_s: float | None
    worker: str
    pid: int
    session: str
    client: str


class LiveCalls:
    """The calls of one pool that have not ended."""

    def __init__(self, dispatcher: Dispatcher, caller: Caller) -> None:
        self._dispatcher = dispatcher
        self._caller = caller

    def rows(self, limit: int) -> list[CallRow]:
        """Return the oldest `limit` of them, the oldest first."""
        with self._dispatcher.lock:
            live = sorted(self._dispatcher.live.values(), key=lambda call: call.id)[:limit]
        now, left, rows = monotonic(), READ_MOST, []
        for call in live:
            size = call.arguments_end - call.arguments_start
            left -= size
            rows.append(self._row(call, now, program_of(call.arguments()) if left >= 0 else ""))
        return rows

    def cancel(self, id: int, by: str) -> bool:
        """End a call as its deadline would: its caller gets CallCancelled. False if it is none of these, or ended."""
        call = self._dispatcher.live.get(id)
        return call is not None and self._caller.end(call, by=by)

    def _row(self, call: Call, now: float, program: str) -> CallRow:
        phase = call.phase
        is_sent = phase is Phase.RUNNING or phase is Phase.ABANDONED
        worker = self._dispatcher.workers.get(call.generation) if is_sent else None
        return {
            "id": call.id,
            "pool": self._dispatcher.name,
            "command": inert_line(call.command[:NAME_MOST]),
            "program": program,
            "phase": _SHOWN.get(phase, "queued"),
            "age_s": max(0.0, now - call.made_at),
            "deadline_s": None if call.deadline == inf else call.deadline - now,
            "worker": worker.name if worker is not None else "",
            "pid": worker.pid if worker is not None else 0,
            "session": inert_line(redact(call.session_name)),
            "client": call.context.get(calling_client, LOCAL),
        }


_SHOWN: dict[Phase, Literal["queued", "waiting", "running", "cancelled"]] = {
    Phase.WAITING: "waiting",
    Phase.RUNNING: "running",
    Phase.ABANDONED: "cancelled",
}


def program_of(arguments: bytes) -> str:
    """Return the module that a call's `spec` names, from its encoded arguments; "" where there is none."""
    try:
        walker: Any = msgpack.Unpacker(max_buffer_size=len(arguments) or 1)
        walker.feed(arguments)
        if _find(walker, "spec") and _find(walker, "module"):
            name = walker.unpack()
            return inert_line(redact(name[:NAME_MOST])) if isinstance(name, str) else ""
    except (ValueError, msgpack.exceptions.UnpackException):  # another bridge's arguments have any form
        pass
    return ""


def _find(walker: Any, name: str) -> bool:
    """Go to the value of this name in the map that begins here; False if it has none."""
    for _ in range(walker.read_map_header()):
        if walker.unpack() == name:
            return True
        walker.skip()
    return False
