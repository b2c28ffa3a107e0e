"""`Journal`: the file of one optimization job, to which it only appends; see `journal_lines` for its lines.

Records by kind: "journal" (first: format, version, id, and what the job is), "answer" (of a language model, a metric
or a tool, kept before the worker has it), "candidate" (evaluated, with its state), "worker" (one that died),
"resumed", "end". Answers stay in the file and are read from there. Each line is given to the system at once, so the
death of any process loses none; what the machine itself must not lose is synced at candidates and ends, answers at
most a second later. One process has a journal open at a time. Any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ...errors import JournalError
from .journal_file import opened, sync_folder, write_whole
from .journal_lines import FORMAT, VERSION, DamagedLine, LineReader, encoded

SYNC_EVERY = 1.0  # seconds
LOCK_PATIENCE = 0.2  # seconds: who lists journals has one for a moment
LINE_MOST = 256 * 1024 * 1024  # bytes
_FIRST = f'{{"kind": "journal", "format": "{FORMAT}", "version": '.encode("ascii")
_VERSION = re.compile(re.escape(_FIRST) + rb"(\d{1,9}), ")


class Journal:
    """An open journal. `create`, `resume` and `temporary` make one; `close` it."""

    def __init__(self, file: IO[bytes], path: Path | None) -> None:
        self.path = path
        self.about: dict[str, Any] = {}  # what the job is
        self.candidates: list[dict[str, Any]] = []
        self.deaths = 0  # of workers
        self.spent: dict[str, Any] = {}
        self.end: dict[str, Any] | None = None
        self.torn = 0  # bytes of a line that was being written when its process died
        self.on_trouble: Callable[[str], object] = _nothing
        self._file = file
        self._lines = LineReader()
        self._answers: dict[str, tuple[int, int]] = {}  # key: where its line is, and how long
        self._lock = threading.Lock()
        self._synced_at = time.monotonic()
        self._is_writable = True
        self._pid = os.getpid()

    @classmethod
    def create(cls, path: Path, about: Mapping[str, Any]) -> Journal:
        """Return a new journal of a job; its folder is made if it is missing.

        Raises:
            JournalError: there is a file already, or it cannot be written.
        """
        file = opened(path, os.O_CREAT | os.O_EXCL)
        try:
            made = cls(file, path)
            made._lock_file()
            made._begin(about)
            with contextlib.suppress(OSError):
                sync_folder(path.parent)
        except BaseException:  # also Ctrl-C: the file would stay locked
            file.close()
            raise
        return made

    @classmethod
    def resume(cls, path: Path) -> Journal:
        """Return a journal that is there, read and ready for more lines; a torn last line is cut off.

        Raises:
            JournalError: it is missing, in use, damaged, of another version, or no journal.
        """
        file = opened(path, 0)
        try:
            found = cls(file, path)
            found._lock_file()
            found._read()
        except BaseException:  # also Ctrl-C: the file would stay locked
            file.close()
            raise
        return found

    @classmethod
    def temporary(cls) -> Journal:
        """Return a journal without a name, that lives as long as its job: for workers that die."""
        try:
            file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        except OSError:  # no folder for temporary files has room
            file = os.fdopen(os.memfd_create("dspex-journal"), "rb+")
        made = cls(file, None)
        made._begin({})
        return made

    # -- writing -------------------------------------------------------------------------------------------------

    def append(self, kind: str, facts: Mapping[str, Any], *, sync: bool = True) -> None:
        """Add a record. A disk that fails ends the journal, with `on_trouble`, not the job."""
        with self._lock:
            self._write({"kind": kind, **facts}, sync=sync)

    def append_candidate(self, candidate: Mapping[str, Any]) -> None:
        """Add a candidate."""
        self.candidates.append(dict(candidate))
        self.append("candidate", {"candidate": candidate})

    def answer(self, key: str) -> Mapping[str, Any] | None:
        """Return what was kept under the key."""
        with self._lock:
            place = self._answers.get(key)
            if place is None:
                return None
            line = os.pread(self._file.fileno(), place[1], place[0])
        return _record_of(line)

    def keep(self, key: str, kind: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer, unless there is one."""
        with self._lock:
            if key in self._answers:
                return
            place = self._write({"kind": "answer", "of": kind, "key": key, **answer, "spent": self.spent}, sync=False)
            if place is not None:
                self._answers[key] = place

    def close(self) -> None:
        """Sync and close it; the file stays, and may be opened by others."""
        with self._lock, contextlib.suppress(OSError):
            if self._is_writable and self._pid == os.getpid():
                os.fsync(self._file.fileno())
            self._is_writable = False
        self._file.close()

    def _begin(self, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        first = {"kind": "journal", "format": FORMAT, "version": VERSION, "began": time.time(), **about}
        with self._lock:
            self._write(first, sync=True)

    def _write(self, record: Mapping[str, Any], *, sync: bool) -> tuple[int, int] | None:
        """Write a line; return its place, None if it was not written."""
        if not self._is_writable or self._pid != os.getpid():  # a forked child's copy is not the job's
            return None
        line, digest = encoded(record, self._lines.sum)
        try:
            start = os.lseek(self._file.fileno(), 0, os.SEEK_END)
            write_whole(self._file.fileno(), line)
            if sync or time.monotonic() - self._synced_at > SYNC_EVERY:
                os.fdatasync(self._file.fileno())
                self._synced_at = time.monotonic()
        except OSError as error:
            self._is_writable = False
            self.on_trouble(f"The journal cannot be written any more, so the job cannot be resumed from here: {error}.")
            return None
        self._lines.sum = digest
        self._lines.number += 1
        return start, len(line)

    # -- reading -------------------------------------------------------------------------------------------------

    def _lock_file(self) -> None:
        until = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() < until:
                    time.sleep(0.01)
                    continue
                raise JournalError(
                    f"The journal {self.path} is in use: its job runs in some process, which is the one to ask.",
                    path=str(self.path),
                    reason="in_use",
                ) from None
            return

    def _read(self) -> None:
        place = 0
        self._require_own_kind()
        while line := self._file.readline(LINE_MOST):
            if len(line) == LINE_MOST and not line.endswith(b"\n"):
                raise self._damaged(DamagedLine(self._lines.number + 1, f"is longer than {LINE_MOST:,} bytes"))
            if not line.endswith(b"\n"):
                self._cut(place, len(line))
                break
            try:
                record = self._lines.read(line)
            except DamagedLine as error:
                if b"\0" in line and not self._file.read(
                    1
                ):  # the machine died with the file's length on its disk alone
                    self._cut(place, len(line))
                    break
                raise self._damaged(error) from None
            try:
                self._take(record, place, len(line))
            except (
                LookupError,
                TypeError,
                ValueError,
                ArithmeticError,
            ):  # whoever knows the sums can write anything under them
                raise self._damaged(DamagedLine(self._lines.number, "is of another shape")) from None
            place += len(line)
        if self._lines.number == 0:  # it ended before its first line did: of no job anything was paid
            raise self._foreign()

    def _require_own_kind(self) -> None:
        """Check that the file is a journal of this version, before its lines are."""
        self._file.seek(0)
        beginning = self._file.read(len(_FIRST))
        self._file.seek(0)
        if beginning != _FIRST:
            raise self._foreign()
        found = _VERSION.match(self._file.read(200))
        self._file.seek(0)
        version = int(found[1]) if found else None
        if version != VERSION:
            raise JournalError(
                f"The journal {self.path} has version {version}; this version of DSPex reads {VERSION}. Resume it with "
                f"the DSPex that wrote it.",
                path=str(self.path),
                reason="version",
            )

    def _take(self, record: dict[str, Any], place: int, length: int) -> None:
        kind = record.get("kind")
        if kind == "journal":
            self.about = record
        elif kind == "answer":
            self._answers[str(record["key"])] = (place, length)
            self.spent = record.get("spent") or self.spent
        elif kind == "candidate":
            self.candidates.append(record["candidate"])
        elif kind == "diverged":
            del self.candidates[int(record["number"]) :]
        elif kind == "worker":
            self.deaths += 1
        elif kind == "resumed":
            self.end = None
        elif kind == "end":
            self.end = record

    def _cut(self, place: int, length: int) -> None:
        os.ftruncate(self._file.fileno(), place)
        self.torn = length

    def _foreign(self) -> JournalError:
        size = os.fstat(self._file.fileno()).st_size
        what = "is empty" if size == 0 else "is no journal of an optimization"
        return JournalError(
            f"The file {self.path} {what}; nothing of it was changed.", path=str(self.path), reason="foreign"
        )

    def _damaged(self, error: DamagedLine) -> JournalError:
        return JournalError(
            f"The journal {self.path} is damaged: line {error.number} {error.reason}. Nothing of it was changed. To go "
            f"on from what is before that line, resume a copy that ends there (head -n {error.number - 1}).",
            path=str(self.path),
            reason="damaged",
            line=error.number,
        )


def _record_of(line: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    return record


def _nothing(text: str) -> None:
    """Say nothing: nobody listens yet."""
