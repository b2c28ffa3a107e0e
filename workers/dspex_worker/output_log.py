"""Send what user code prints, warns and logs to the supervisor, as LOG messages with the call's id.

`sys.stdout` and `sys.stderr` become streams whose lines are sent; the logging of code that set up no handler goes the
same way, and so do warnings. Descriptors 1 and 2 stay what they are (see `stdio`): what C code and children write there
the supervisor reads from the pipe of stderr. Any thread, also in a finalizer that runs in the midst of a write.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from contextvars import ContextVar
from typing import Any, Final

from .context import Context, running_context
from .frame_writer import FrameWriter
from .output_limit import OutputLimit
from .wire import OverLimit, Unencodable
from .wire.messages import Kind
from .wire.shapes import LEVEL_MOST, NAME_MOST

LINE_MOST: Final = 8 * 1024  # characters of a line that has not ended
CALL_NOTICE_S: Final = 0.1  # seconds between notices at the ends of calls
WRITE_MOST: Final = 64 * 1024  # characters of one write that are looked at

_emitting: ContextVar[logging.LogRecord | None] = ContextVar("dspex_emitting", default=None)


class OutputLog:
    """One worker's output on its way to the supervisor."""

    def __init__(self, writer: FrameWriter) -> None:
        self._writer: FrameWriter | None = writer
        self._limit = OutputLimit()
        self._lock = threading.Lock()
        self._streams: tuple[LoggedStream, ...] = ()

    def install(self) -> None:
        """Take over the streams and the logging of this process."""
        buffer = sys.stderr.buffer
        out = LoggedStream(buffer, self, "stdout", logging.INFO)
        err = LoggedStream(buffer, self, "stderr", logging.WARNING)
        sys.stdout, sys.stderr = self._streams = (out, err)
        logging.lastResort = LogHandler(self)  # for code that set up no handler of its own
        if not logging.root.handlers and logging.root.level == logging.WARNING:
            logging.root.setLevel(logging.INFO)
        _tell_who_emits()
        os.register_at_fork(after_in_child=self.forget)

    def send(self, level: int, logger: str, text: str, call: int | None = None) -> None:
        """Send a text of some lines; what is over the limit is dropped, and counted."""
        context = running_context.get(None)
        if context is None:
            self._send(level, logger, text, call or 0)
        else:
            context.log(lambda: self._send(level, logger, _concealed(text, context), context.call_id))

    def end_call(self, call: int) -> None:
        """Send what the ended call left unfinished, and how much was dropped."""
        for stream in self._streams:
            stream.end_line(call)
        if self._limit.dropped_bytes:
            with self._lock:
                notice = self._limit.notice(time.monotonic(), CALL_NOTICE_S)
            if notice:
                self._write(logging.WARNING, "dspex", notice, call)

    def drop(self, lines: int, size: int) -> None:
        """Count what is not even looked at."""
        with self._lock:
            self._limit.drop(lines, size)

    @property
    def is_over(self) -> bool:
        """Whether this is a forked child of the worker, whose output is its own."""
        return self._writer is None

    def forget(self) -> None:
        """In a forked child of user code: write to the descriptors themselves."""
        self._writer = None
        self._lock = threading.Lock()

    def _send(self, level: int, logger: str, text: str, call: int) -> None:
        lines = text.count("\n") + 1
        if not self._lock.acquire(timeout=1.0):  # a finalizer in the midst of this very code
            return
        try:
            now = time.monotonic()
            is_admitted = self._limit.admits(lines, len(text), now)
            notice = self._limit.notice(now) if is_admitted else ""
        finally:
            self._lock.release()
        if notice:
            self._write(logging.WARNING, "dspex", notice, call)
        if is_admitted:
            self._write(level, logger, text, call)

    def _write(self, level: int, logger: str, text: str, call: int) -> None:
        writer = self._writer
        if writer is None:
            return
        sendable = text.encode("utf-8", "replace").decode()
        try:
            frame = writer.frame(Kind.LOG, call, min(max(level, 0), LEVEL_MOST), logger[:NAME_MOST], sendable)
        except (Unencodable, OverLimit):
            return
        writer.write_beside(frame)


class LoggedStream(io.TextIOWrapper):
    """A text stream whose finished lines are sent; of a line that is rewritten (`\\r`), as it was in the end."""

    def __init__(self, buffer: Any, log: OutputLog, name: str, level: int) -> None:
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", write_through=True)
        self._log = log
        self._name = name
        self._level = level
        self._begun = threading.local()  # the line that each thread is writing

    def write(self, text: str) -> int:
        if self._log.is_over or not isinstance(text, str):
            return super().write(text)
        looked_at = text
        if len(text) > WRITE_MOST:
            looked_at = text[:WRITE_MOST]
            self._log.drop(text.count("\n", WRITE_MOST), len(text) - WRITE_MOST)
        self._take(getattr(self._begun, "line", "") + looked_at)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end_line(self, call: int) -> None:
        """Send the line that this thread has begun."""
        begun = getattr(self._begun, "line", "")
        if begun:
            self._begun.line = ""
            self._send([begun], call)

    def _take(self, text: str) -> None:
        if len(text) > LINE_MOST and "\n" not in text:
            text += "\n"
        done, newline, self._begun.line = text.rpartition("\n")
        if newline:
            self._send(done.split("\n"))

    def _send(self, lines: list[str], call: int | None = None) -> None:
        text = "\n".join([line.rstrip("\r").rpartition("\r")[2] for line in lines]).strip("\n")
        if not text.strip():
            return
        record = _emitting.get()
        if record is None:
            self._log.send(self._level, self._name, text, call)
        else:
            self._log.send(record.levelno, record.name, text, call)


class LogHandler(logging.Handler):
    """Sends log records."""

    def __init__(self, log: OutputLog) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self._log.is_over:
                self._log.send(record.levelno, record.name, self.format(record))
        except Exception:  # as logging's own handlers
            self.handleError(record)


def _concealed(text: str, context: Context) -> str:
    for secret in context.secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    return text


def _tell_who_emits() -> None:
    """Let the streams know which record a handler of the user's writes: its level and logger are worth keeping."""
    plain = logging.StreamHandler.emit

    def emit(self: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
        token = _emitting.set(record)
        try:
            plain(self, record)
        finally:
            _emitting.reset(token)

    logging.StreamHandler.emit = emit  # type: ignore[method-assign,assignment]
