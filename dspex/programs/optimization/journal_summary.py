"""Look at a journal without taking it: what its job is, how far it came, and what happened. Nothing is run or changed.

The job may be running: its process goes on writing meanwhile, and a last line without its end is not read.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ...errors import JournalError
from .journal_file import fault_of
from .journal_lines import FORMAT, VERSION, DamagedLine, LineReader
from .scored_candidate import OWN_KINDS

LINE_MOST = 256 * 1024 * 1024  # bytes
_FIRST = re.compile(rb'\{"kind": "journal", "format": "' + FORMAT.encode("ascii") + rb'", "version": (\d{1,9}), ')


@dataclass(slots=True)
class JournalSummary:
    """What a journal tells of its job. `fault` says why the rest of it cannot be read; empty if all can."""

    path: Path
    about: Mapping[str, Any] = field(default_factory=dict)
    candidates: list[Mapping[str, Any]] = field(default_factory=list)
    spent: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] | None = None
    deaths: int = 0
    fault: str = ""
    is_running: bool = False
    changed_at: float = 0.0

    @property
    def id(self) -> str:
        """The job's id; of what is no journal the file's name."""
        return str(self.about.get("id") or self.path.stem)

    @property
    def state(self) -> str:
        """ "running", "interrupted" (its process ended before it did), "damaged", or how it ended."""
        if self.fault:
            return "damaged"
        if self.is_running:
            return "running"
        return "interrupted" if self.end is None else str(self.end.get("state", "failed"))

    @property
    def row(self) -> dict[str, Any]:
        """What a list of jobs says of it."""
        full = [float(one["score"]) for one in self.candidates if one["kind"] in ("full", *OWN_KINDS)]
        baseline = next((float(one["score"]) for one in self.candidates if one["kind"] == "baseline"), None)
        requests = int(self.spent.get("requests", 0))
        is_priced = requests > int(self.spent.get("unpriced_requests", 0))
        began = self.about.get("began")
        return {
            "id": self.id,
            "program": str(self.about.get("title") or ""),
            "optimizer": str(self.about.get("optimizer") or ""),
            "state": self.state,
            "stage": "",
            "trial": sum(one["kind"] not in OWN_KINDS for one in self.candidates),
            "trials": None,
            "best": max(full, default=None),
            "baseline": baseline,
            "requests": requests,
            "tokens": int(self.spent.get("tokens", 0)),
            "cost": float(self.spent.get("cost_usd", 0.0)) if is_priced else None,
            "elapsed": max(0.0, self.changed_at - began) if isinstance(began, int | float) else None,
            "message": self.fault or str((self.end or {}).get("message") or ""),
            "journal": str(self.path),
        }

    def take(self, record: Mapping[str, Any]) -> None:
        """Take the next record."""
        kind = record.get("kind")
        if isinstance(record.get("spent"), Mapping):
            self.spent = {name: float(number) for name, number in record["spent"].items()}
        if kind == "journal":
            self.about = record
        elif kind == "candidate":
            told = record["candidate"]
            self.candidates.append({"kind": str(told["kind"]), "score": float(told["score"])})
        elif kind == "diverged":
            del self.candidates[int(record["number"]) :]
        elif kind == "worker":
            self.deaths += 1
        elif kind == "resumed":
            self.end = None
        elif kind == "end":
            self.end = record


def summary_of(path: Path) -> JournalSummary:
    """Return what a journal tells; what cannot be read is said by its `fault`.

    Raises:
        JournalError: there is no such file.
    """
    found = JournalSummary(path)
    try:
        for record in records_of(path):
            found.take(record)
    except JournalError as error:
        if error.reason == "missing":
            raise
        found.fault = str(error)
    except (LookupError, TypeError, ValueError, RecursionError) as error:  # of another shape, with right checksums
        found.fault = f"It holds what no journal does: {error!r}."
    status = path.stat()
    found.changed_at = status.st_mtime
    found.is_running = not found.fault and is_in_use(path)
    return found


def summaries_in(folder: Path) -> list[JournalSummary]:
    """Return what the journals of a folder tell, the newest last; none if there is no folder."""
    found: list[JournalSummary] = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            found.append(summary_of(path))
        except (JournalError, OSError) as error:  # it was removed meanwhile, or is another user's
            found.append(JournalSummary(path, fault=str(error)))
    return found


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a journal's records, as far as they are whole.

    Raises:
        JournalError: it is missing, unsafe, no journal, of another version, or damaged from here on.
    """
    with _opened(path) as file:
        _require_own_kind(path, file)
        reader = LineReader()
        while line := file.readline(LINE_MOST):
            if not line.endswith(b"\n"):
                return  # it is being written, or its process died then
            try:
                yield reader.read(line)
            except DamagedLine as error:
                if b"\0" in line and not file.read(1):  # the machine died with the file's length on its disk alone
                    return
                raise JournalError(
                    f"Line {error.number} {error.reason}.", path=str(path), reason="damaged", line=error.number
                ) from None


def _opened(path: Path) -> IO[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise JournalError(
            f"The journal {path} cannot be opened: {error.strerror}.", path=str(path), reason=reason
        ) from error
    if fault := fault_of(os.fstat(descriptor)):
        os.close(descriptor)
        raise JournalError(f"It is not used: it {fault}.", path=str(path), reason="unsafe")
    return os.fdopen(descriptor, "rb")


def _require_own_kind(path: Path, file: IO[bytes]) -> None:
    first = _FIRST.match(file.read(200))
    file.seek(0)
    if first is None:
        raise JournalError("It is no journal of an optimization.", path=str(path), reason="foreign")
    if int(first[1]) != VERSION:
        raise JournalError(
            f"It has version {int(first[1])}; this version of DSPex reads {VERSION}.", path=str(path), reason="version"
        )


def is_in_use(path: Path) -> bool:
    """Return whether a process has the journal. The lock is held for a moment: who opens a journal waits for that."""
    with _opened(path) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False
