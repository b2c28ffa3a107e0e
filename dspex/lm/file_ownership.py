"""Check that a file is this user's alone: others could have written answers into it, or read them.

For SQLite files, which bring siblings: SQLite opens those by name, so the folder must be closed to others too.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import SettingsError

SIBLINGS = ("-wal", "-shm", "-journal")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def require_own(path: Path) -> None:
    """Check that the file, its siblings and its folder, if they exist, are this user's and nobody else writes them.

    Raises:
        SettingsError: they are not; the message says what to do.
    """
    path = path.absolute()
    if fault := next(_faults(path), None):
        raise SettingsError(f"The cache file {path} is not used: {fault}", key="path")


def open_own(path: Path) -> None:
    """Create the file if it is missing (mode 0600), and check the very file that was opened, not its name.

    Raises:
        SettingsError: it is a link, not a plain file, another user's, or open to others' writing.
        OSError: it cannot be opened.
    """
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = _opened(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SettingsError(f"The cache file {path} is not used: {_LINK}", key="path") from None
        raise
    try:
        fault = _file_fault(os.fstat(descriptor))
    finally:
        os.close(descriptor)
    if fault:
        raise SettingsError(f"The cache file {path} is not used: it {fault}", key="path")


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDWR | flags, 0o600)
    except PermissionError:  # a cache that is only read, baked into an image
        return os.open(path, os.O_RDONLY | flags & ~os.O_CREAT)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | flags & ~os.O_CREAT)


_LINK = "it is a symbolic link, which another user could point elsewhere; give the path of the file itself."


def _faults(path: Path) -> Iterator[str]:
    for file in (path, *(path.with_name(path.name + ending) for ending in SIBLINGS)):
        status = _status(file)
        if status is not None and stat.S_ISLNK(status.st_mode):
            yield _LINK if file == path else f"{file} is a symbolic link; remove it."
        elif status is not None and not stat.S_ISDIR(status.st_mode) and (fault := _file_fault(status)):
            yield f"{file} {fault}"
    yield from _folder_faults(path.parent)


def _file_fault(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file; give another path."
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to {os.geteuid()}: remove it, or give a path in a folder of yours."
    if status.st_mode & _OTHERS_WRITE:
        return (
            f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o}): remove it, and `chmod go-w` new ones."
        )
    if status.st_nlink > 1:
        return f"has {status.st_nlink} names (hard links): remove it, or give another path."
    return ""


def _folder_faults(folder: Path) -> Iterator[str]:
    """Yield faults: the folder must be closed; those above may be shared as /tmp is (sticky), but not a stranger's."""
    for place in (folder, *folder.parents):
        link = _status(place)
        if link is not None and stat.S_ISLNK(link.st_mode) and link.st_uid not in (os.geteuid(), 0):
            yield f"{place} is a symbolic link of uid {link.st_uid}; give a path in a folder of yours."
    real = folder.resolve()
    for place in (real, *real.parents):
        status = _status(place)
        if status is None:
            continue
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid not in (os.geteuid(), 0):
            yield f"the folder {place} belongs to uid {status.st_uid}; give a path in a folder of yours."
        elif place == real and mode & _OTHERS_WRITE:
            yield f"the folder {place} can be written by others (mode {mode:04o}): run `chmod go-w {place}`."
        elif mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield f"the folder {place} can be written by everybody (mode {mode:04o}): run `chmod o-w {place}`."


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:  # not there, or not to be looked at: opening it will say
        return None
