"""Security: what a worker's code may read of the service that started it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dspex.cli.process_privacy import hide_from_workers

NOBODY = 65_534
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")


def _in_child(work: Callable[[], int]) -> int:
    """Run in a forked child; its exit code."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _readable(pid: int) -> int:
    """How many of a process's private files can be opened."""
    found = 0
    for name in ("environ", "mem", "maps", "auxv"):
        try:
            with Path(f"/proc/{pid}/{name}").open("rb"):
                found += 1
        except OSError:
            continue
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user, and root reads everything")
@pytest.mark.parametrize(("is_hidden", "expected"), [(False, 4), (True, 0)])
def test_a_process_of_the_same_user_reads_no_environment_and_no_memory(is_hidden: bool, expected: int) -> None:
    """security: a service and its worker, both of one user that is not root."""

    def service() -> int:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as a program that was started by this user
        if is_hidden and not hide_from_workers():
            return 98
        host = os.getpid()
        return _in_child(lambda: ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) or _readable(host))

    assert _in_child(service) == expected


def test_the_service_hides_before_it_reads_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """security: `dspex start`, though the settings cannot be read and nothing starts; in a child, where it ends."""
    from dspex.cli import main

    def started() -> int:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        main(["start", "--config", str(tmp_path / "none.toml")])
        return int(ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0))

    assert _in_child(started) == 0
