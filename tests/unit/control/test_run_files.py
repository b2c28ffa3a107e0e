"""Unit: whose a control socket is, and what becomes of one that a dead process left."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from dspex.control import claims, run_files, run_folders
from dspex.errors import SettingsError
from tests.support.run_files import a_dead_pid, a_run, leave_behind


@pytest.fixture
def place(folder: Path) -> Path:
    return run_files.socket_path("x", folder)


def test_folder_is_made_private(tmp_path: Path) -> None:
    """unit"""
    path = run_folders.runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert path == tmp_path / "dspex"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_folder_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """unit"""
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 700"):
        run_folders.private_directory(path)


def test_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """unit"""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(SettingsError, match="a link"):
        run_folders.private_directory(tmp_path / "link")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder that is somebody else's")
def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """unit"""
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)
    with pytest.raises(SettingsError, match="uid 65534"):
        run_folders.private_directory(path)


def test_path_over_the_limit_is_refused_before_it_is_bound(tmp_path: Path) -> None:
    """unit"""
    with pytest.raises(SettingsError, match="104"):
        run_files.checked_path(tmp_path / ("x" * 105))


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a b"])
def test_name_that_would_leave_the_folder_is_refused(folder: Path, name: str) -> None:
    """unit"""
    with pytest.raises(SettingsError, match="name"):
        run_files.socket_path(name, folder)


def test_socket_and_run_file_are_private_and_go_away(place: Path) -> None:
    """unit"""
    before = os.umask(0)
    try:
        claim = claims.claim(place, a_run(place))
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(run_files.run_file_of(place).stat().st_mode) == 0o600
    assert [run.name for run in run_files.living(place.parent)] == ["x"]
    claim.close()
    claims.release(place, "t")
    assert not place.exists()
    assert not run_files.run_file_of(place).exists()


def test_second_claim_of_a_living_owner_is_refused_and_changes_nothing(place: Path) -> None:
    """unit"""
    with claims.claim(place, a_run(place)):
        before = run_files.read(place)
        assert before is not None and before.token == "t"
        with pytest.raises(SettingsError, match="runs already"):
            claims.claim(place, a_run(place, token="other"))
        assert run_files.read(place) == before


def test_release_leaves_the_files_of_another_owner(place: Path) -> None:
    """unit"""
    with claims.claim(place, a_run(place)):
        claims.release(place, "somebody else's")
        assert place.exists()


def test_files_of_a_dead_process_are_replaced(place: Path) -> None:
    """unit"""
    leave_behind(place, a_run(place, pid=a_dead_pid(), start_time=1))
    with claims.claim(place, a_run(place, token="new")):
        run = run_files.read(place)
        assert run is not None
        assert run.token == "new"


def test_files_of_a_reused_pid_are_replaced(place: Path) -> None:
    """unit: the pid lives, but it is a process that began at another time"""
    run = a_run(place)
    leave_behind(place, replace(run, start_time=run.start_time - 1))
    assert run_files.living(place.parent) == []
    with claims.claim(place, a_run(place, token="new")):
        assert len(run_files.living(place.parent)) == 1


def test_listener_without_a_run_file_is_not_displaced(place: Path) -> None:
    """unit"""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place))
        other.listen()
        with pytest.raises(SettingsError, match="listens on"):
            claims.claim(place, a_run(place))
        assert place.exists()


def test_file_that_is_no_socket_is_not_removed(place: Path) -> None:
    """unit"""
    place.write_text("precious")
    with pytest.raises(SettingsError, match="no socket"):
        claims.claim(place, a_run(place))
    assert place.read_text() == "precious"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x"}', "null", "\x00"])
def test_broken_run_file_is_no_run_file(place: Path, text: str) -> None:
    """unit"""
    run_files.run_file_of(place).write_text(text)
    assert run_files.read(place) is None
    with claims.claim(place, a_run(place)):
        assert run_files.read(place) is not None


def test_two_names_share_a_folder_without_meeting(folder: Path) -> None:
    """unit"""
    first, second = run_files.socket_path("a", folder), run_files.socket_path("b", folder)
    with claims.claim(first, a_run(first)), claims.claim(second, a_run(second)):
        assert [run.name for run in run_files.living(folder)] == ["a", "b"]
        claims.release(first, "t")
        assert [run.name for run in run_files.living(folder)] == ["b"]


@pytest.mark.parametrize("name", ["x.json", "x.lock", "x.log"])
def test_socket_is_never_named_as_a_file_beside_it(folder: Path, name: str) -> None:
    """unit: the run file would replace the socket, and nobody could connect"""
    with pytest.raises(SettingsError, match="must not end in"):
        run_files.checked_path(folder / name)
