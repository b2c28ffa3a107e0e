"""Security: the disk cache is used only where nobody else could have put answers into it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dspex.errors import SettingsError
from dspex.lm import disk_cache
from dspex.lm.cache import Cache, CachedReply
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM
from tests.support.lm.requests import ASK

REPLY = CachedReply("application/json", b"{}")
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A cache file of ours, in a folder of its own."""
    path = tmp_path / "own" / "replies.db"
    cache = Cache(path=path)
    cache.put(b"planted", REPLY)
    cache.close()
    return path


def refused(path: Path) -> str:
    """The refusal of a file; None of the answers in it is served."""
    with pytest.raises(SettingsError) as caught:
        Cache(path=path)
    assert caught.value.key == "path" and str(path) in str(caught.value)
    return str(caught.value)


def test_own_file_is_used(made: Path) -> None:
    """unit: whatever the mask of new files is, it and its folder are made for us alone."""
    cache = Cache(path=made)
    assert cache.get(b"planted") == REPLY
    cache.close()
    assert made.stat().st_mode & 0o777 == 0o600 and made.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_file_that_others_write_is_refused(made: Path, mode: int) -> None:
    """unit"""
    made.chmod(mode)
    assert f"{mode:04o}" in refused(made)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_folder_that_others_write_is_refused(made: Path, mode: int) -> None:
    """unit: SQLite opens what stands beside the file by its name."""
    made.parent.chmod(mode)
    assert "chmod go-w" in refused(made)


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
def test_links_are_refused(made: Path, ending: str, tmp_path: Path) -> None:
    """unit: symbolic and hard, of the file and of those beside it."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copy(made, elsewhere)
    place = made.with_name(made.name + ending)
    place.unlink(missing_ok=True)
    place.symlink_to(elsewhere)
    assert "symbolic link" in refused(made)
    place.unlink()
    place.hardlink_to(elsewhere)
    assert "hard links" in refused(made)
    place.unlink()
    place.symlink_to(tmp_path / "not there")
    assert "symbolic link" in refused(made)


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_other_kinds_of_files_are_refused(made: Path, ending: str) -> None:
    """unit: a FIFO would hang the first call."""
    place = made.with_name(made.name + ending)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    assert "plain file" in refused(made)


@as_root
@pytest.mark.parametrize("which", ["file", "folder", "folder above", "beside"])
def test_another_users_is_refused(made: Path, which: str) -> None:
    """unit: the file, what stands beside it, its folder, or one above that it could be swapped in."""
    made.with_name(made.name + "-wal").touch()
    places = {
        "file": made,
        "folder": made.parent,
        "folder above": made.parent.parent,
        "beside": made.with_name(made.name + "-wal"),
    }
    os.chown(places[which], NOBODY, -1)
    try:
        assert f"uid {NOBODY}" in refused(made)
    finally:
        os.chown(places[which], 0, -1)


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_file_that_is_swapped_later_costs_no_call(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Callable[..., FakeLM]
) -> None:
    """collaboration: a link that was put there after the check: the call is answered, and the refusal told once."""
    told: list[str] = []
    monkeypatch.setattr(disk_cache, "write_log", lambda event: told.append(event.name.value))
    path = tmp_path / "replies.db"
    lm = fake(["one"], cache=True)
    with LMClient(cache=Cache(path=path)) as client:
        path.with_name(path.name + ending).symlink_to(tmp_path / "elsewhere")
        assert [client.complete(lm, ASK).text for _ in range(2)] == ["one", "one"]
    assert told == ["dspex.cache.refused"]
    assert not (tmp_path / "elsewhere").exists()
