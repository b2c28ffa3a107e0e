"""Unit and process: "cannot be told" is never taken for "gone"."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dspex.control import claims, peer_credentials, process_end, process_identity, run_files, unreachable
from dspex.control.process_end import ProcessEnd
from dspex.control.process_identity import Life
from dspex.errors import DspexError, NotRunning, SettingsError
from tests.support.run_files import a_dead_pid, a_run, leave_behind


@pytest.fixture
def place(folder: Path) -> Path:
    return run_files.socket_path("x", folder)


def no_proc(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patch.setattr(process_identity, "PROC", tmp_path)


def foreign_proc(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where /proc is the host's and we live in a container: our own number is another there."""
    (tmp_path / "self").symlink_to("1")
    patch.setattr(process_identity, "PROC", tmp_path)


def other_namespace(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patch.setattr(process_identity, "namespace_of_pids", lambda: "pid:[1]")


BLIND = pytest.mark.parametrize("blind", [no_proc, foreign_proc, other_namespace])
Blinder = Callable[[pytest.MonkeyPatch, Path], None]


@BLIND
def test_an_owner_is_seen_by_its_lock_where_its_number_says_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: Blinder
) -> None:
    """unit: and its name is refused to others while it lives"""
    claim = claims.claim(place, a_run(place))
    blind(monkeypatch, tmp_path)
    assert run_files.life_of(place, claim.run) is Life.ALIVE
    assert [run.name for run in run_files.living(place.parent)] == ["x"]
    place.unlink()  # not even a socket that answers
    with pytest.raises(SettingsError, match="runs already"):
        claims.claim(place, a_run(place, token="other"))
    claim.close()
    assert run_files.life_of(place, claim.run) is Life.GONE
    with claims.claim(place, a_run(place, token="new")):
        assert run_files.read(place) is not None


@BLIND
def test_an_owner_without_a_lock_cannot_be_told(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: Blinder
) -> None:
    """unit: a socket that refuses is proof of its end; without one its name is not given away"""
    run = a_run(place)
    leave_behind(place, run)
    blind(monkeypatch, tmp_path)
    assert run_files.life_of(place, run) is Life.UNKNOWN
    with pytest.raises(NotRunning, match="cannot be told from here"), unreachable.explained(place):
        raise NotRunning(str(place), "there is no socket")
    place.unlink()
    with pytest.raises(SettingsError, match="cannot be identified"):
        claims.claim(place, a_run(place, token="new"))
    assert run_files.read(place) == run
    leave_behind(place, run)
    with claims.claim(place, a_run(place, token="new")):
        assert place.exists()


def test_a_process_that_proc_does_not_show_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: as hidepid hides those that may not be dumped; kill(pid, 0) sees them"""
    namespace = process_identity.namespace_of_pids()
    child = subprocess.Popen(["sleep", "60"])
    dead = a_dead_pid()
    (tmp_path / "self").symlink_to(str(os.getpid()))
    (tmp_path / str(os.getpid()) / "ns").mkdir(parents=True)
    (tmp_path / str(os.getpid()) / "ns" / "pid").symlink_to(namespace)
    monkeypatch.setattr(process_identity, "PROC", tmp_path)
    assert process_identity.namespace_of_pids() == namespace
    assert process_identity.life_of(child.pid, 1, namespace) is Life.UNKNOWN
    assert process_identity.life_of(dead, 1, namespace) is Life.GONE
    child.kill()
    child.wait()
    assert process_identity.life_of(child.pid, 1, namespace) is Life.GONE


def test_a_zombie_is_gone() -> None:
    """unit: its parent has not asked for its end yet"""
    child = subprocess.Popen(["sleep", "60"])
    began = process_identity.start_time_of(child.pid)
    assert began is not None
    namespace = process_identity.namespace_of_pids()
    assert process_identity.life_of(child.pid, began, namespace) is Life.ALIVE
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_identity.life_of(child.pid, began, namespace) is Life.GONE
    child.wait()


@BLIND
def test_nothing_is_said_to_have_ended_that_cannot_be_watched(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: Blinder
) -> None:
    """unit: nor is it signalled"""
    leave_behind(place, a_run(place))
    blind(monkeypatch, tmp_path)
    with ProcessEnd(place) as seen:
        assert seen.wait(0.05) is Life.UNKNOWN
        with pytest.raises(DspexError, match="cannot be signalled"):
            seen.signal(signal.SIGTERM)


@BLIND
def test_an_end_is_seen_by_the_lock_after_the_files_are_gone(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: Blinder
) -> None:
    """unit: a service removes its files before its process ends"""
    claim = claims.claim(place, a_run(place))
    blind(monkeypatch, tmp_path)
    with ProcessEnd(place) as seen:
        claims.record_end(claim, 3)
        claims.release(place, "t")
        assert not place.exists()
        assert seen.wait(0.05) is Life.ALIVE
        claim.close()
        assert seen.wait(10.0) is Life.GONE
        assert seen.calls_cut == 3


@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), OSError(38, "not implemented")])
def test_where_pidfds_are_forbidden_the_error_names_the_call(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """unit: as by a seccomp filter; the lock and the start time still tell whether it lives"""

    def forbidden(pid: int) -> int:
        raise error

    monkeypatch.setattr(process_end.os, "pidfd_open", forbidden)
    with claims.claim(place, a_run(place)), ProcessEnd(place) as seen:
        assert seen.life is Life.ALIVE
        with pytest.raises(DspexError, match=r"pidfd_open\("):
            seen.signal(signal.SIGTERM)


def test_a_run_file_of_an_earlier_or_later_version_is_read(place: Path) -> None:
    """unit"""
    run = a_run(place)
    earlier = f'{{"name": "x", "pid": {run.pid}, "start_time": {run.start_time}, "socket": "{place}", "version": "0", '
    earlier += '"started_at": 0.0, "token": "t", "kind": "service"'
    run_files.run_file_of(place).write_text(earlier + "}")
    assert run_files.read(place) == replace(run, started_at=0.0, namespace="")
    run_files.run_file_of(place).write_text(earlier + ', "color": "blue"}')
    assert run_files.read(place) == replace(run, started_at=0.0, namespace="")


def test_a_full_disk_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    monkeypatch.setattr(claims.os, "write", lambda descriptor, data: 3)
    with pytest.raises(SettingsError, match="No space left"):
        claims.claim(place, a_run(place))
    monkeypatch.undo()
    assert {path.suffix for path in place.parent.iterdir()} == {".lock"}


def test_waiting_works_above_descriptor_1023(place: Path) -> None:
    """unit: select() cannot"""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    child = subprocess.Popen(["sleep", "60"])
    held = [os.dup(0) for _ in range(1100)]
    try:
        leave_behind(place, a_run(place, pid=child.pid))
        with ProcessEnd(place) as seen:
            assert seen._pidfd > 1023
            assert seen.wait(0.0) is Life.ALIVE
            seen.signal(signal.SIGKILL)
            assert seen.wait(10.0) is Life.GONE
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        child.kill()
        child.wait()


def test_a_listener_tells_its_number_as_seen_from_here(place: Path) -> None:
    """unit: what a run file of another namespace cannot say"""
    with claims.claim(place, a_run(place)), socket.socket(socket.AF_UNIX) as sock, ProcessEnd(place) as seen:
        sock.connect(str(place))
        assert peer_credentials.credentials(sock) == (os.getpid(), os.getuid())
        seen.identify({"name": "x", "version": "0", "kind": "service"}, os.getpid())
        assert seen.life is Life.ALIVE
