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

from dspex.lm import disk_cache
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
    cache, missing = Cache(path=path), [f"{name}{number}".encode() for number in range(200)]
    while missing:  # what the other process holds up for too long is not written down
        for key in missing:
            cache.put(key, REPLY)
        written = Cache(path=path)
        missing = [key for key in missing if written.get(key) != REPLY]
        written.close()
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
        kept = {key for (key,) in other.execute("SELECT key FROM answers")}
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
        kept = {key for (key,) in other.execute("SELECT key FROM answers")}
    assert kept == {b"after"}


@pytest.mark.parametrize("row", [(b"k", 1e12, None, "text"), (b"k", "soon", "text/plain", b"x"), (b"k", 1e12, 5, b"x")])
def test_another_programs_table_is_not_believed(tmp_path: Path, row: tuple[object, ...]) -> None:
    """unit"""
    path = tmp_path / "cache.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE answers (key, expires, content_type, body, digest)")
        other.execute("INSERT INTO answers VALUES (?, ?, ?, ?, x'00')", row)
        other.commit()
    with closing(Cache(path=path)) as cache:
        assert cache.get(b"k") is None
        assert cache.get(b"k") is None


def test_entry_with_a_flipped_bit_is_a_miss_and_one_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """unit: SQLite itself would not notice; the others are served."""
    path = tmp_path / "cache.db"
    with closing(Cache(path=path)) as cache:
        for number in range(5):
            cache.put(b"%d" % number, CachedReply("application/json", b"%d" % number * 100))
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE answers SET body = ? WHERE key IN (?, ?)", (b"planted", b"1", b"2"))
        other.commit()
    with closing(Cache(path=path)) as cache, caplog.at_level("WARNING"):
        assert [cache.get(b"%d" % number) is None for number in range(5)] == [False, True, True, False, False]
    assert [record.message for record in caplog.records if "cache" in record.message] == [caplog.records[0].message]


def test_damaged_file_is_given_up_with_one_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """unit: and its stats say why; clearing it makes a new file."""
    path = tmp_path / "cache.db"
    path.touch(0o600)
    path.write_bytes(b"no database" * 1000)
    with closing(Cache(path=path)) as cache, caplog.at_level("WARNING"):
        for number in range(10):
            assert cache.get(b"%d" % number) is None
            cache.put(b"%d" % number, REPLY)
        assert sum("dspex.cache.damaged" in str(vars(record)) for record in caplog.records) == 1
        assert "given up" in cache.stats().disk and cache.stats().entries == 10
        cache.clear()
        cache.put(b"after", REPLY)
        assert cache.stats().disk == "in use" and cache.stats().disk_entries == 1
    with closing(Cache(path=path)) as again:
        assert again.get(b"after") == REPLY


def test_disk_is_bounded_in_bytes(tmp_path: Path) -> None:
    """unit: what expires first goes first; an entry that would take most of the file is not written."""
    path, bound = tmp_path / "cache.db", 2_000_000
    with closing(Cache(path=path, most_disk_bytes=bound, clock=iter(range(10**9)).__next__)) as cache:
        for number in range(2_000):
            cache.put(b"%d" % number, REPLY)
            assert path.stat().st_size <= bound
        cache.put(b"huge", CachedReply("text/plain", b"x" * bound))
        stats = cache.stats()
        assert stats.disk == "in use" and 100 < stats.disk_entries < 400 and cache.get(b"huge") is not None
        assert stats.disk_bytes <= bound + disk_cache._WAL_BYTES * 2
    with closing(Cache(path=path, most_disk_bytes=bound, clock=lambda: 5.0)) as again:
        assert again.get(b"1999") == REPLY and again.get(b"0") is None and again.get(b"huge") is None


def test_stats_and_clear(tmp_path: Path) -> None:
    """unit: both layers; the file gives its space back."""
    with closing(Cache(path=tmp_path / "cache.db")) as cache:
        for number in range(100):
            cache.put(b"%d" % number, CachedReply("text/plain", b"x" * 10_000))
        assert cache.get(b"1") and cache.get(b"none") is None
        stats = cache.stats()
        assert (stats.entries, stats.disk_entries, stats.hits, stats.misses) == (100, 100, 1, 1)
        assert stats.bytes > 1_000_000 and stats.disk_bytes > 1_000_000 and stats.path == str(cache.path)
        cache.clear()
        stats = cache.stats()
        assert (stats.entries, stats.bytes, stats.disk_entries) == (0, 0, 0) and stats.disk_bytes < 100_000
    memory = Cache()
    assert memory.stats().disk == "none" and memory.stats().path is None


def _mixed(path: str, number: int) -> None:
    cache = Cache(path=path, most_disk_bytes=3_000_000)
    chance = random.Random(number)
    for _ in range(400):
        name = chance.randrange(300)
        found = cache.get(b"%d" % name)
        assert found is None or found.body == b"%d" % name * 1000
        cache.drop(b"%d" % name)
        cache.put(b"%d" % name, CachedReply("text/plain", b"%d" % name * 1000))
        if chance.random() < 0.005:
            cache.clear()
    cache.close()


def test_processes_that_read_write_evict_and_clear_at_once(tmp_path: Path) -> None:
    """process: each finds what was put there, or nothing; nobody's layer is given up."""
    path = str(tmp_path / "cache.db")
    context = multiprocessing.get_context("spawn")
    users = [context.Process(target=_mixed, args=(path, number)) for number in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
        assert user.exitcode == 0
    with closing(Cache(path=path)) as cache:
        assert cache.stats().disk == "in use"
