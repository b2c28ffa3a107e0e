"""Log `dspex start` to a file that is rotated by its size, and opened anew on SIGUSR1. Any thread.

What cannot be written (a full disk, a folder that is gone) is counted and said by the next line that can be; it never
stops the service. Standard output and error, where they are that file too, follow it: what Python itself or a library
in C writes there is not left in a file of old.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..setting_values import setting_value

SIZE = 10 * 1024 * 1024  # bytes of a log file
KEEP = 5  # files of old beside it: dspex.log.1 is the latest
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_SETTINGS = ("file", "size", "keep")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What the [log] table says: the file (None: standard error), its size in bytes, and how many are kept."""

    file: Path | None = None
    size: int = SIZE
    keep: int = KEEP

    @classmethod
    def of(cls, tables: Mapping[str, Any], file: str | None = None) -> LogSettings:
        """Read the table; `file`, if given, goes before its own.

        Raises:
            SettingsError: a value that cannot be; `key` says which.
        """
        table = tables.get("log", {})
        if not isinstance(table, dict) or not set(table) <= set(_SETTINGS):
            raise SettingsError(f"The [log] table has the settings {', '.join(_SETTINGS)} and no other.", key="log")
        size = setting_value("log.size", "size", table.get("size", SIZE))
        keep = setting_value("log.keep", "count", table.get("keep", KEEP))
        chosen = file if file is not None else table.get("file")
        if chosen is not None and not isinstance(chosen, str):
            raise SettingsError(f"log.file is {chosen!r}: it is a path.", key="log.file")
        return cls(None if chosen is None else Path(chosen).absolute(), size or SIZE, keep)


class LogFile(RotatingFileHandler):
    """Writes records to one file, which nobody else can read."""

    def __init__(self, settings: LogSettings, path: Path) -> None:
        """Open it.

        Raises:
            SettingsError: it cannot be opened, or is no file.
        """
        self._lost = 0
        self._why = ""
        self._told_apart: tuple[int, int] | None = None  # the file that is open: its device and inode
        try:
            if path.exists() and not path.is_file():
                raise OSError(0, "it is no file")
            super().__init__(path, maxBytes=settings.size, backupCount=settings.keep, encoding="utf-8")
        except OSError as error:
            reason = error.strerror or str(error)
            raise SettingsError(f"The log {str(path)!r} cannot be written: {reason}.", key="log.file") from error

    def reopen(self) -> None:
        """Open the file anew by its name: somebody has moved it."""
        with contextlib.suppress(OSError):  # it is tried again with the next record
            self.acquire()
            try:
                self._drop_stream()
                self.stream = self._open()
            finally:
                self.release()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            said = f"{lost} log lines were lost: {self._why}"
            super().emit(logging.makeLogRecord({"name": "dspex", "levelname": "WARNING", "msg": said}))
            self._lost += lost - 1 if self._lost else 0  # it was counted itself
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Count what could not be written; what is left of it in the stream must not come out later, in its middle."""
        error = sys.exc_info()[1]
        self._lost += 1
        self._why = getattr(error, "strerror", None) or repr(error)
        self._drop_stream()

    def _open(self) -> io.TextIOWrapper:
        descriptor = os.open(self.baseFilename, _FLAGS, 0o600)
        self._take_streams(descriptor)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123 - a descriptor

    def _drop_stream(self) -> None:
        stream, self.stream = self.stream, None  # FileHandler opens it again
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

    def _take_streams(self, descriptor: int) -> None:
        """Point standard output and error here, if they were the file that was open until now."""
        before, now = self._told_apart, os.fstat(descriptor)
        self._told_apart = now.st_dev, now.st_ino
        for number in (1, 2):
            with contextlib.suppress(OSError):  # the shell closed it
                one = os.fstat(number)
                if stat.S_ISREG(one.st_mode) and (one.st_dev, one.st_ino) == before:
                    os.dup2(descriptor, number)
