"""Unit: a name outlives the files that say whose it is, and the files are put back."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dspex.control import claims, name_lock, run_files, run_folders, unreachable
from dspex.control.process_end import ProcessEnd
from dspex.control.upkeep import Upkeep
from dspex.errors import NotRunning, SettingsError
from dspex.events import Name
from tests.support.run_files import a_run


@pytest.fixture
def place(folder: Path) -> Path:
    return run_files.socket_path("x", folder)


def sweep_socket(place: Path) -> None:
    place.unlink()


def sweep_run_file(place: Path) -> None:
    run_files.run_file_of(place).unlink()


def sweep_all(place: Path) -> None:
    for path in place.parent.iterdir():
        path.unlink()


def sweep_folder(place: Path) -> None:
    shutil.rmtree(place.parent)


SWEEPS = [sweep_socket, sweep_run_file, sweep_all, sweep_folder]
Sweep = Callable[[Path], None]


def never(*_: object, **__: object) -> None:
    raise AssertionError("it is not asked for")


@pytest.mark.parametrize("sweep", SWEEPS)
def test_what_was_swept_is_put_back_once(place: Path, sweep: Sweep) -> None:
    """unit: clients connect again, and whoever watches the old run file still sees its owner live"""
    events: list[Name] = []
    listeners: list[socket.socket] = []
    with claims.claim(place, a_run(place)) as claim, ProcessEnd(place) as ending:
        first = claim.listener
        upkeep = Upkeep(claim, listen_on=listeners.append, emit=lambda name, **facts: events.append(name))
        upkeep.look()
        assert not events
        sweep(place)
        upkeep.look()
        upkeep.look()
        assert events == [Name.CONTROL_RESTORED]
        assert listeners == [claim.listener]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
            claim.listener.accept()[0].close()
        run = run_files.read(place)
        assert run is not None and run.token == "t" and run.is_locked
        claims.record_end(claim, 3)
        assert ending.calls_cut == 3
        assert ending.life == "alive"
        first.close()


@pytest.mark.parametrize("sweep", [sweep_all, sweep_folder])
def test_a_swept_name_is_not_given_away(place: Path, sweep: Sweep) -> None:
    """unit: the error names the owner, and a client is not told to end it"""
    with claims.claim(place, a_run(place)):
        sweep(place)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        with pytest.raises(SettingsError, match=rf"runs already \(pid {os.getpid()}"):
            claims.claim(place, a_run(place, token="other"))
        assert name_lock.holder(place) == os.getpid()
        with pytest.raises(NotRunning, match="puts it back") as told, unreachable.explained(place):
            raise NotRunning(str(place), "there is no socket")
        assert "--now" not in str(told.value) and str(os.getpid()) in str(told.value)
    assert name_lock.holder(place) is None
    with claims.claim(place, a_run(place, token="other")):
        assert name_lock.holder(place) == os.getpid()


def test_another_living_owner_is_left_alone(place: Path) -> None:
    """unit: its place was taken by one that knows no locks of names; that is said once"""
    said: list[str] = []
    with claims.claim(place, a_run(place)) as claim:
        sweep_all(place)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(place))
            other.listen()
            upkeep = Upkeep(claim, listen_on=never, emit=lambda name, **facts: said.append(facts["error"]))
            upkeep.look()
            upkeep.look()
            assert len(said) == 1 and "listens on" in said[0]
            assert place.is_socket()


def test_a_folder_that_others_can_enter_is_not_used(place: Path) -> None:
    """unit: somebody else may have made it; the socket comes back once it is private"""
    said: list[Name] = []
    with claims.claim(place, a_run(place)) as claim:
        first = claim.listener
        sweep_folder(place)
        place.parent.mkdir(mode=0o755)
        place.parent.chmod(0o755)
        upkeep = Upkeep(claim, listen_on=lambda listener: None, emit=lambda name, **facts: said.append(name))
        upkeep.look()
        assert said == [Name.CONTROL_HINDERED] and not place.exists()
        place.parent.chmod(0o700)
        upkeep.look()
        assert said[1:] == [Name.CONTROL_RESTORED] and place.is_socket()
        first.close()


def test_a_stranger_on_the_address_keeps_nobody_from_the_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: any user may take an abstract address first; then the files alone hold the name"""
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(name_lock._address(place))
        with claims.claim(place, a_run(place)) as claim:
            assert claim.lock is None and run_files.read(place) is not None
        squatter.listen()
        monkeypatch.setattr(name_lock.peer_credentials, "credentials", lambda sock: (1, os.getuid() + 1))
        with claims.claim(place, a_run(place, token="b")) as claim:
            assert claim.lock is None


def test_looks_do_not_fill_the_holders_queue(place: Path) -> None:
    """unit"""
    with claims.claim(place, a_run(place)) as claim:
        assert claim.lock is not None
        for _ in range(3):
            for _ in range(name_lock.BACKLOG):
                assert name_lock.holder(place) == os.getpid()
            name_lock.take_up(claim.lock)


# -- the folders of other shells --


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """No variable says where sockets are; the usual folders are in `folder`."""
    for name in (run_folders.DIRECTORY_VARIABLE, "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(run_folders.tempfile, "gettempdir", lambda: str(folder / "tmp"))
    monkeypatch.setattr(run_folders, "_USUAL_TEMPORARY", folder / "tmp")
    monkeypatch.setattr(run_folders, "_OF_LOGINS", folder / "logins")
    (folder / "tmp").mkdir()
    (folder / "logins" / str(os.getuid())).mkdir(parents=True, mode=0o700)
    return folder


def test_a_name_is_found_from_the_other_kind_of_shell(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: from cron what a login started, and the other way round; a second one of the name is refused"""
    login, own = bare / "logins" / str(os.getuid()), f"dspex-{os.getuid()}"
    for inside, outside in (("login", "cron"), ("cron", "login")):
        for_login = {"login": str(login), "cron": ""}
        monkeypatch.setenv("XDG_RUNTIME_DIR", for_login[inside])
        place = run_files.socket_path("x")
        assert place.parent == {"login": login / "dspex", "cron": bare / "tmp" / own}[inside]
        with claims.claim(place, a_run(place)):
            monkeypatch.setenv("XDG_RUNTIME_DIR", for_login[outside])
            assert run_files.find_socket(name="x") == place
            assert [run.name for run in run_files.living()] == ["x"]
            with pytest.raises(SettingsError, match="runs already"):
                claims.claim(run_files.find_socket(name="x"), a_run(place, token="b"))
        assert run_files.find_socket(name="x") != place, "a dead one is nobody's to find"
        claims.release(place, "t")


def test_the_error_names_each_folder(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: and that a variable is missing which may have named another"""
    login = bare / "logins" / str(os.getuid()) / "dspex"
    login.mkdir(mode=0o700)
    with pytest.raises(NotRunning) as told, unreachable.explained(path := run_files.find_socket(name="x")):
        raise NotRunning(str(path), "there is no socket")
    assert str(login) in str(told.value) and str(path) in str(told.value)
    assert "XDG_RUNTIME_DIR" in str(told.value)


def test_a_folder_that_was_named_is_the_only_one(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    place = run_files.socket_path("x")
    with claims.claim(place, a_run(place)):
        monkeypatch.setenv(run_folders.DIRECTORY_VARIABLE, str(bare / "own"))
        assert run_files.find_socket(name="x").parent == bare / "own"
        assert run_files.living() == []


@pytest.mark.parametrize("how", ["open", "link", "theirs"])
def test_other_folders_count_only_if_they_are_private(bare: Path, how: str) -> None:
    """unit: somebody else could put a socket there"""
    login = bare / "logins" / str(os.getuid()) / "dspex"
    if how == "link":
        (bare / "real").mkdir(mode=0o700)
        login.symlink_to(bare / "real")
    else:
        login.mkdir(mode=0o700)
        assert login in run_folders.known_directories()
    if how == "open":
        login.chmod(0o777)
    elif how == "theirs":
        if os.getuid() != 0:
            pytest.skip("only root can make a folder that is somebody else's")
        os.chown(login, 65534, 65534)
    assert login not in run_folders.known_directories()
