"""Virtualenvs that `dspex setup` makes for pools with `requirements`: where they are, and whether one is complete.

A virtualenv's folder is named for a digest of all that it is made from, and stands where it will be used: scripts in it
hold its path. A file in it says that it is complete, and is written last: a folder without one is never used.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dspex_worker import starting

from .errors import SettingsError, VirtualenvMissing

COMPLETE = "dspex-virtualenv.json"
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Virtualenv:
    """The virtualenv of these requirements, for this interpreter; it may be there or not."""

    requirements: tuple[str, ...]
    python: str  # the interpreter that it is made with
    path: Path

    @classmethod
    def of(cls, requirements: Sequence[str], python: str) -> Virtualenv:
        """Return the one that these settings mean."""
        return cls(tuple(requirements), python, virtualenv_folder() / _digest(requirements, python))

    @property
    def interpreter(self) -> str:
        """The interpreter in it."""
        return str(self.path / "bin" / "python")

    @property
    def is_complete(self) -> bool:
        """Whether it was made to the end, its interpreter is there still, and nobody else can have changed it."""
        return is_complete(self.path)

    def require(self, pool: str, source: str) -> None:
        """Check that the pool can run in it; `source` names the settings file, if it has one.

        Raises:
            VirtualenvMissing: it has not been made; the message names the command.
            SettingsError: others may write it.
        """
        if self.path.exists():
            check_private(self.path.parent)
            check_private(self.path)
        if not self.is_complete:
            raise VirtualenvMissing(pool, self.requirements, path=str(self.path), source=source)


def is_complete(path: Path) -> bool:
    """Whether a virtualenv stands there that was made to the end, with its interpreter."""
    try:
        made = json.loads((path / COMPLETE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(made, dict) and (path / "bin" / "python").is_file()


def virtualenv_folder() -> Path:
    """Return the folder of all virtualenvs of this user: `dspex/venvs` in $XDG_CACHE_HOME, or in ~/.cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "dspex" / "venvs"


def check_private(path: Path) -> None:
    """Check that nobody else can put code there, which would run as this user.

    Raises:
        SettingsError: it is no folder of this user's, or others may write it.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        fault = "is a link or a file, not a folder; remove it"
    elif status.st_uid != os.getuid():
        fault = f"belongs to uid {status.st_uid}, not to {os.getuid()}; set XDG_CACHE_HOME to a folder of yours"
    elif status.st_mode & 0o022:
        fault = f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o}); run `chmod 700 {path}`"
    else:
        return
    raise SettingsError(f"The folder of virtualenvs {path} {fault}.", key="requirements")


def checked_requirements(value: object) -> tuple[str, ...]:
    """Return requirements as the installer takes them: names with versions, URLs, or paths; never an option.

    Raises:
        ValueError: one is none.
    """
    items = [item for item in value.split(",") if item] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item.strip() for item in items):
        raise ValueError('it must be a list of requirements, such as ["dspy==3.4.1", "rank-bm25"]')
    for item in items:
        if item.strip().startswith("-"):
            raise ValueError(
                f"{item.strip()!r} is an option of the installer; indexes and constraints are pip's own settings "
                f"(pip.conf, PIP_INDEX_URL, PIP_CONSTRAINT; UV_INDEX_URL for uv)"
            )
        if any(character < " " for character in item) or re.search(r"\s--?[A-Za-z]", item):
            raise ValueError(f"{item.strip()!r} holds a line break or an option: one requirement each")
        if _PASSWORD.search(item):
            raise ValueError("a requirement holds a password: put it into ~/.netrc or the installer's settings")
    return tuple(dict.fromkeys(item.strip() for item in items))


def worker_package() -> Path:
    """Return the folder of the workers' package of this process: a virtualenv gets a copy of it."""
    return Path(starting.__file__).parent


# ======================================================================================================================


def _digest(requirements: Sequence[str], python: str) -> str:
    """Return what names the virtualenv: a change of anything that it is made from means another one."""
    parts = [*sorted(requirements), "", *map(_file_facts, requirements), _file_facts(os.path.realpath(python))]
    parts += [sys.platform, platform.machine(), _worker_digest()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _file_facts(path: str) -> str:
    """Return what tells versions of a file apart: an interpreter that is upgraded, a wheel that is built anew."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return ""
    return f"{Path(path).absolute()} {status.st_size} {status.st_mtime_ns}"


@functools.cache  # what is loaded here does not change
def _worker_digest() -> str:
    folder, digest = worker_package(), hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
