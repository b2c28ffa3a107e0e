"""Log what workers print, warn, log and write to stderr: redacted, and bounded per worker. Engine's thread.

Their Python code sends LOG messages; what C code and children write comes from the pipe of stderr, whose end is kept
for errors as well. Whatever is over a worker's limit is dropped, and said to be, by the second.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from dspex_worker.output_limit import NOTICE_S

from ..lm.redaction import redact
from ..terminal_text import inert, inert_line
from .processes.engine import Engine
from .processes.timers import Timer
from .worker import Worker

INFO, WARNING = 20, 30  # levels of `logging`
LINE_MOST = 8 * 1024  # bytes of one line from a pipe
_LOGGER_MOST = 200  # characters of a logger's name

Report = Callable[[Worker, int, dict[str, Any]], None]


class WorkerOutput:
    """The output of one pool's workers; `report` gets each text as the facts of an event."""

    def __init__(self, engine: Engine, report: Report) -> None:
        self._report = report
        self._dropping: dict[int, Worker] = {}  # by generation
        self._notices = Timer(engine.timers, self._tell_dropped)

    def logged(self, worker: Worker, call: int, level: int, logger: str, text: str, size: int) -> None:
        """Take a LOG message; what it says is part of what an error of the worker's carries, too."""
        worker.stderr.add(text.encode("utf-8", "replace") + b"\n")
        if worker.log_limit.admits(text.count("\n") + 1, size, monotonic()):
            self._say(worker, call, level, logger, text, size)
        else:
            self._note_dropped(worker)

    def printed(self, worker: Worker, data: bytes) -> None:
        """Take what came from the pipe of its stderr."""
        now, limit = monotonic(), worker.output_limit
        if not limit.has_room(now):  # a flood costs no more than to count it
            limit.drop(data.count(b"\n"), len(data))
            worker.unfinished_line = b""
        else:
            *lines, worker.unfinished_line = (worker.unfinished_line + data).split(b"\n")
            if len(worker.unfinished_line) > LINE_MOST:
                lines.append(worker.unfinished_line)
                worker.unfinished_line = b""
            for line in lines:
                self._line(worker, line, now)
        if limit.dropped_bytes:
            self._note_dropped(worker)

    def ended(self, worker: Worker) -> None:
        """Say what is left to be said of a worker that has ended."""
        if worker.unfinished_line:
            self._line(worker, worker.unfinished_line, monotonic())
            worker.unfinished_line = b""
        self._tell(worker, inf)

    # ================================================================================================================

    def _line(self, worker: Worker, line: bytes, now: float) -> None:
        line = line.rstrip(b"\r").rpartition(b"\r")[2]
        if line.strip() and worker.output_limit.admits(1, len(line), now):
            text = line[:LINE_MOST].decode("utf-8", "replace")
            self._say(worker, _only_call(worker), INFO, "stderr", text, len(line))

    def _say(self, worker: Worker, call: int, level: int, logger: str, text: str, size: int) -> None:
        source = inert_line(redact(logger[:_LOGGER_MOST]))  # a logger's name is the worker's word as much as its text
        running = worker.calls.get(call)
        session = inert_line(redact(running.session_name)) if running is not None else ""
        facts = {"call": call, "session": session, "level": level, "logger": source, "text": inert(redact(text))}
        self._report(worker, size, {**facts, "pid": worker.pid})

    def _note_dropped(self, worker: Worker) -> None:
        self._dropping[worker.generation] = worker
        if self._notices.due == inf:
            self._notices.set(monotonic() + NOTICE_S)

    def _tell_dropped(self, now: float) -> None:
        for worker in tuple(self._dropping.values()):
            self._tell(worker, now)

    def _tell(self, worker: Worker, now: float) -> None:
        self._dropping.pop(worker.generation, None)
        for limit in (worker.log_limit, worker.output_limit):
            if notice := limit.notice(now):
                self._say(worker, 0, WARNING, "dspex", notice, len(notice))


def _only_call(worker: Worker) -> int:
    """Return the call that runs in a worker, if there is but one; 0 otherwise."""
    calls = tuple(worker.calls)
    return calls[0] if len(calls) == 1 else 0
