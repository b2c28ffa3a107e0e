"""Unit: the disk layer of the cache: killed writers, two processes, damaged files, a full disk."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dspex.lm.cache import Cache, CachedReply
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM

Fake = Callable[..., FakeLM]
REPLY = CachedReply("application/json", b"x" * 5000)


def test_disk_layer_survives_a_writer_that_is_killed(tmp_path: Path) -> None:
    """chaos: SIGKILL in the middle of writing; what was put before is there, and the file is usable."""
    path = tmp_path / "cache.db"
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            cache = Cache(path=path)
            for number in range(100_000):
                cache.put(b"%d" % number, REPLY)
                if number == 20:
                    os.write(writing, b"!")
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"!"
    finally:
        os.close(reading)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    cache = Cache(path=path)
    assert all(cache.get(b"%d" % number) == REPLY for number in range(21))
    cache.put(b"after", REPLY)
    cache.close()
    again = Cache(path=path)
    assert again.get(b"after") == REPLY
    again.close()


def _fill(path: str, name: str) -> None:
    cache = Cache(path=path)
    for number in range(200):
        cache.put(f"{name}{number}".encode(), REPLY)
    cache.close()


def test_two_processes_share_a_disk_layer(tmp_path: Path) -> None:
    """process: both write at once; each finds what the other wrote."""
    path = str(tmp_path / "cache.db")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_fill, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    cache = Cache(path=path)
    assert all(cache.get(f"{name}{number}".encode()) == REPLY for name in "ab" for number in range(200))
    cache.close()


@pytest.mark.parametrize("where", ["head", "middle", "truncated"])
def test_corrupted_disk_layer_is_given_up_not_believed(tmp_path: Path, where: str) -> None:
    """collaboration: damaged anywhere, a get gives the entry as it was or nothing, and never an error."""
    path = tmp_path / "cache.db"
    cache = Cache(path=path)
    for number in range(50):
        cache.put(b"%d" % number, REPLY)
    cache.close()
    data = bytearray(path.read_bytes())
    if where == "truncated":
        data = data[: len(data) // 2]
    else:
        at = 0 if where == "head" else len(data) // 3
        data[at : at + 20_000] = random.Random(1).randbytes(20_000)
    path.write_bytes(data)
    for leftover in tmp_path.glob("cache.db-*"):
        leftover.unlink()
    damaged = Cache(path=path)
    for number in range(50):
        assert damaged.get(b"%d" % number) in (None, REPLY)
    damaged.put(b"new", REPLY)
    assert damaged.get(b"new") == REPLY  # from memory, if need be
    damaged.close()


def test_full_disk_keeps_the_memory_layer(tmp_path: Path) -> None:
    """collaboration: a disk that takes no more is read on, and the cache works on."""
    cache = Cache(path=tmp_path / "cache.db")
    cache.put(b"first", REPLY)
    assert cache._disk is not None and cache._disk._database is not None
    cache._disk._database.execute("PRAGMA max_page_count = 10")  # what SQLite says then is SQLITE_FULL
    for number in range(50):
        cache.put(b"%d" % number, REPLY)
    assert all(cache.get(b"%d" % number) == REPLY for number in range(50))
    cache.close()
    again = Cache(path=tmp_path / "cache.db")
    assert again.get(b"first") == REPLY
    again.close()


def test_disk_layer_holds_no_key_and_no_pickle(tmp_path: Path, fake: Fake) -> None:
    """collaboration: answers and digests only."""
    path = tmp_path / "cache.db"
    with LMClient(cache=Cache(path=path)) as client:
        lm = fake(["an answer that is kept"], cache=True, private=True)
        client.complete(lm, [{"role": "user", "content": "a prompt that is not"}])
        key = lm.api_key
    data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"an answer that is kept" in data
    assert b"a prompt that is not" not in data and str(key).encode() not in data


def test_disk_that_another_process_holds_is_written_again_later(tmp_path: Path) -> None:
    """unit: a long transaction elsewhere (a backup) costs single replies, not the disk layer."""
    path = tmp_path / "cache.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other, closing(Cache(path=path)) as cache:
        cache.put(b"before", REPLY)
        other.execute("BEGIN IMMEDIATE")
        cache.put(b"meanwhile", REPLY)
        other.execute("COMMIT")
        cache.put(b"after", REPLY)
        kept = {key for (key,) in other.execute("SELECT key FROM replies")}
    assert kept == {b"before", b"after"}


def test_disk_that_is_held_when_it_is_opened_is_opened_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: it is not taken for a read-only one, whose changes nobody looks for."""
    path = tmp_path / "cache.db"
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **facts: connect(*given, **{**facts, "timeout": 0.05}))
    with closing(connect(path, isolation_level=None)) as other, closing(Cache(path=path)) as cache:
        other.execute("BEGIN EXCLUSIVE")
        cache.put(b"meanwhile", REPLY)
        other.execute("COMMIT")
        cache.put(b"after", REPLY)
        kept = {key for (key,) in other.execute("SELECT key FROM replies")}
    assert kept == {b"after"}


@pytest.mark.parametrize("row", [(b"k", 1e12, None, "text"), (b"k", "soon", "text/plain", b"x"), (b"k", 1e12, 5, b"x")])
def test_another_programs_table_is_not_believed(tmp_path: Path, row: tuple[object, ...]) -> None:
    """unit"""
    path = tmp_path / "cache.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE replies (key, expires, content_type, body)")
        other.execute("INSERT INTO replies VALUES (?, ?, ?, ?)", row)
        other.commit()
    with closing(Cache(path=path)) as cache:
        assert cache.get(b"k") is None
        assert cache.get(b"k") is None
