"""Open a journal's file, which must be this user's alone, and write to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from ...errors import JournalError


def opened(path: Path, flags: int) -> IO[bytes]:
    """Return the file, open for reading and writing; with O_CREAT its folder is made if it is missing.

    Raises:
        JournalError: it cannot be opened, or others may have written what is in it.
    """
    try:
        if flags & os.O_CREAT:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o600)
    except FileExistsError:
        raise JournalError(
            f"There is a file {path} already. If it is this job's journal, dspex.resume({str(path)!r}) goes on with "
            f"it; else give another path.",
            path=str(path),
            reason="exists",
        ) from None
    except OSError as error:
        raise JournalError(
            f"The journal {path} cannot be opened: {error.strerror}.",
            path=str(path),
            reason="missing" if isinstance(error, FileNotFoundError) else "unreadable",
        ) from error
    if fault := fault_of(os.fstat(opened)):
        os.close(opened)
        raise JournalError(f"The journal {path} is not used: it {fault}.", path=str(path), reason="unsafe")
    return os.fdopen(opened, "rb+")


def fault_of(status: os.stat_result) -> str:
    """Return why others may have written what is in the file, whose answers an optimizer would believe."""
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to {os.geteuid()}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o}): run `chmod go-w` on it"
    return ""


def write_whole(descriptor: int, line: bytes) -> None:
    """Write all of a line, however much the system takes at once.

    Raises:
        OSError: it takes no more.
    """
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Have the disk know the folder's entries.

    Raises:
        OSError: it cannot.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
