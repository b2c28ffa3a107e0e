"""Make the virtualenvs of pools, and remove those that no pool needs: what `dspex setup` does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DspexError
from ..lm.providers import KEY_NAMES
from ..virtualenvs import COMPLETE, Virtualenv, check_private, is_complete, virtualenv_folder, worker_package

NEEDED = "msgpack>=1.1"  # by the workers' package, which is copied into each
_UNINHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class BuildFailed(DspexError):
    """A step of making a virtualenv failed; what it printed stands above."""


@dataclass(frozen=True, slots=True)
class FoundVirtualenv:
    """A virtualenv in the folder, complete or not."""

    path: Path
    facts: dict[str, Any]  # what its file says: requirements, python, made_at; empty of one that is not complete

    def is_in_use(self) -> bool:
        """Whether a process that may be looked at has loaded something of it."""
        return any(f"{self.path}/" in text for text in _maps())


def build(virtualenv: Virtualenv) -> bool:
    """Make it unless it is there; waits for another process that makes it. False: there was nothing to do.

    Raises:
        BuildFailed: the installer failed; nothing is left of it.
        SettingsError: others may write the folder.
    """
    folder = virtualenv.path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)
    with _locked(virtualenv.path):
        if virtualenv.is_complete:
            return False
        shutil.rmtree(virtualenv.path, ignore_errors=True)  # what a killed one left
        try:
            _make(virtualenv)
        except BaseException:  # also Ctrl-C
            shutil.rmtree(virtualenv.path, ignore_errors=True)
            raise
    return True


def found() -> Iterator[FoundVirtualenv]:
    """Yield those in the folder."""
    folder = virtualenv_folder()
    if folder.is_dir():
        check_private(folder)
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                facts = json.loads((path / COMPLETE).read_text()) if is_complete(path) else {}
                yield FoundVirtualenv(path, facts)


def prune(needed: Iterable[Virtualenv]) -> tuple[list[Path], list[Path]]:
    """Remove those that are not needed; return them, and those that processes have loaded, which stay."""
    keep = {virtualenv.path for virtualenv in needed}
    removed: list[Path] = []
    used: list[Path] = []
    for one in found():
        if one.path in keep:
            continue
        with _locked(one.path):  # not one that is being made
            if one.is_in_use():
                used.append(one.path)
                continue
            (one.path / COMPLETE).unlink(missing_ok=True)  # first: what is half removed is not complete
            shutil.rmtree(one.path)
            removed.append(one.path)
    return removed, used


# ======================================================================================================================


def _make(virtualenv: Virtualenv) -> None:
    path, interpreter = str(virtualenv.path), virtualenv.interpreter
    uv = shutil.which("uv")
    wanted = ["--", *virtualenv.requirements, NEEDED]
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", virtualenv.python, path)
        _run(uv, "pip", "install", "--python", interpreter, *wanted)
    else:
        _run(virtualenv.python, "-m", "venv", path)
        _run(interpreter, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *wanted)
    virtualenv.path.chmod(0o700)
    packages = _run(interpreter, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", is_read=True)
    target = Path(packages.strip()) / "dspex_worker"
    shutil.rmtree(target, ignore_errors=True)  # a requirement may have brought a published one
    shutil.copytree(worker_package(), target, ignore=shutil.ignore_patterns("__pycache__"))
    _run(interpreter, "-I", "-c", "import dspex_worker.forkserver, msgpack")
    facts = {
        "requirements": list(virtualenv.requirements),
        "python": virtualenv.python,
        "made_at": time.time(),
    }
    unfinished = virtualenv.path / f"{COMPLETE}.new"
    unfinished.write_text(json.dumps(facts, indent=1))
    unfinished.replace(virtualenv.path / COMPLETE)


def _run(*command: str, is_read: bool = False) -> str:
    """Run a step; what it prints goes to stderr, unless it `is_read`."""
    withheld = {*_UNINHERITED, *KEY_NAMES}  # an installer runs the packages' code
    environment = {name: text for name, text in os.environ.items() if name not in withheld}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if is_read else 2,
            env=environment,
            check=False,
            text=True,
        )
    except OSError as error:
        raise BuildFailed(f"{command[0]} could not be run: {error.strerror}.") from None
    if done.returncode:
        raise BuildFailed(f"`{' '.join(command)}` ended with exit code {done.returncode}.")
    return done.stdout or ""


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the lock of one virtualenv; its file stays, since another may wait for it."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _maps() -> Iterator[str]:
    """Yield what is mapped into the processes that may be looked at; there are none to see outside of Linux."""
    for file in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # another user's, or gone
            yield file.read_text(errors="replace")
