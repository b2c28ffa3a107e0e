"""Log `dspex start` to standard error without blocking: a line that cannot be written is counted.

A full disk, a pipe that nobody reads and a terminal that is gone must neither stop the service nor change its exit
code. So lines are written to the descriptor itself: a text stream would keep what failed, and fail again at exit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
from collections.abc import Generator

from .. import log_records

FORMAT = "%(asctime)s %(levelname)s %(message)s"
PIECE = 4096  # bytes that a pipe which is writable takes at once (PIPE_BUF)
PATIENCE = 0.2  # seconds that a line may wait for a slow reader


def logging_to_stderr(level: str) -> contextlib.AbstractContextManager[None]:
    """Write the records of the logger "dspex" to standard error."""
    return logging_to(stderr_handler(), level)


@contextlib.contextmanager
def logging_to(handler: logging.Handler, level: str) -> Generator[None]:
    """Write the records of the logger "dspex" to a handler."""
    log_records.prepare()
    logger = logging.getLogger("dspex")
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.setLevel(level.upper())  # the workers' loggers have a level of their own
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


def stderr_handler() -> logging.Handler:
    """Return what writes to standard error."""
    if sys.stderr is None:
        return logging.NullHandler()
    try:
        return LineHandler(sys.stderr.fileno())
    except OSError:  # no real file, as in an interpreter that was embedded
        return logging.StreamHandler()


class LineHandler(logging.Handler):
    """Writes each record as a line to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lost = 0
        self._why = ""
        self._is_torn = False  # the last line ended in its middle

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it as lost."""
        try:
            line = self.format(record)
        except Exception as error:  # a message that does not fit its arguments
            line = f"a log line could not be made: {error!r}"
        head = "\n" if self._is_torn else ""
        if self._lost:
            head += f"{self._lost} log lines were lost: {self._why}\n"
        try:
            self._write(f"{head}{line}\n".encode(errors="replace"))
        except OSError as error:
            self._lost, self._why = self._lost + 1, error.strerror or str(error)
        else:
            self._lost = 0

    def _write(self, data: bytes) -> None:
        patience = 0.0 if self._lost else PATIENCE  # a reader that is stuck is waited for once, not by each line
        while data:
            _wait_writable(self._descriptor, patience)
            written = os.write(self._descriptor, data[:PIECE])
            data = data[written:]
            self._is_torn = bool(data)


def _wait_writable(descriptor: int, seconds: float) -> None:
    """Wait until a write would not block.

    Raises:
        TimeoutError: nobody reads.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(seconds * 1000):
        raise TimeoutError(0, "nobody reads it")
