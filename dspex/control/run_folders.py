"""Locate the private folders of this user's control sockets: the one to use, and those that other shells may use.

A login shell has $XDG_RUNTIME_DIR, a cron job has not; $TMPDIR differs too. So a supervisor is looked for in every
folder that one of them would have taken. Any thread; blocks on small files only.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import SettingsError

DIRECTORY_VARIABLE = "DSPEX_RUNTIME_DIR"
_USUAL_TEMPORARY = Path("/tmp")
_OF_LOGINS = Path("/run/user")


def runtime_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of this user's run files, made with mode 0700 if it is not there.

    $DSPEX_RUNTIME_DIR, else $XDG_RUNTIME_DIR/dspex, else `dspex-<uid>` in the temporary folder.

    Raises:
        SettingsError: it is somebody else's, a link, or open to others; or no folder can be written.
    """
    return private_directory(_preferred(os.environ if environ is None else environ))


def known_directories(environ: Mapping[str, str] | None = None) -> list[Path]:
    """Return the folders in which a supervisor of this user may be, that of this environment first.

    $DSPEX_RUNTIME_DIR, where it is set, is the only one. Others are named only if they are there and private.

    Raises:
        SettingsError: that of this environment cannot be told.
    """
    environ = os.environ if environ is None else environ
    first = _preferred(environ)
    if environ.get(DIRECTORY_VARIABLE):
        return [first]
    others = [path for path in _elsewhere(environ) if path != first and _is_usable(path)]
    return list(dict.fromkeys([first, *others]))


def private_directory(path: Path) -> Path:
    """Return `path` once it is certain that nobody else can put or read anything there.

    Raises:
        SettingsError: it cannot be made, or is not a folder of ours with mode 0700.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status, above = path.lstat(), path.parent.stat()
    except OSError as error:
        raise SettingsError(
            f"The run folder {path} cannot be used: {error.strerror}. Set {DIRECTORY_VARIABLE} to a folder of yours.",
            key="runtime_dir",
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        fault = "is a link or a file, not a folder; remove it"
    elif status.st_uid != os.getuid():
        fault = f"belongs to uid {status.st_uid}, not to {os.getuid()}; set {DIRECTORY_VARIABLE} to a folder of yours"
    elif status.st_mode & 0o077:
        fault = f"is open to others (mode {stat.S_IMODE(status.st_mode):04o}); run `chmod 700 {path}`"
    elif above.st_uid not in (0, os.getuid()):  # its owner may put another folder in its place
        fault = f"lies in a folder of uid {above.st_uid}; set {DIRECTORY_VARIABLE} to a folder in one of yours"
    elif above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
        fault = f"lies in {path.parent}, where others may put another in its place; set {DIRECTORY_VARIABLE}"
    else:
        return path
    raise SettingsError(f"The run folder {path} {fault}.", key="runtime_dir")


# ======================================================================================================================


def _preferred(environ: Mapping[str, str]) -> Path:
    if own := environ.get(DIRECTORY_VARIABLE):
        return Path(own)
    base = environ.get("XDG_RUNTIME_DIR")
    if base and _is_own_directory(Path(base)):
        return Path(base) / "dspex"
    return _in_temporary(_temporary())


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:  # it tried each by writing a file
        raise SettingsError(
            f"No temporary folder can be written ({error.strerror}): a control socket needs a folder. Set "
            f"{DIRECTORY_VARIABLE} to one of yours that can be written.",
            key="runtime_dir",
        ) from error


def _elsewhere(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where other environments of this user put theirs."""
    if base := environ.get("XDG_RUNTIME_DIR"):
        yield Path(base) / "dspex"
    yield _OF_LOGINS / str(os.getuid()) / "dspex"
    yield _in_temporary(_USUAL_TEMPORARY)
    if given := environ.get("TMPDIR"):
        yield _in_temporary(Path(given))


def _in_temporary(folder: Path) -> Path:
    return folder / f"dspex-{os.getuid()}"


def _is_usable(path: Path) -> bool:
    if not _is_own_directory(path):
        return False
    try:
        private_directory(path)
    except SettingsError:
        return False
    return True


def _is_own_directory(path: Path) -> bool:
    try:
        status = path.lstat() if path.name.startswith("dspex") else path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
