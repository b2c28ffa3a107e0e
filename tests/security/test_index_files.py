"""Security: a saved index may come from anywhere: it is refused with a clear error, or it is data; within bounds."""

from __future__ import annotations

import array
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import InvalidInput
from dspex.retrieval import vector_file
from tests.support.paths import ROOT


def pairs(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


def unit(*numbers: float) -> bytes:
    return array.array("f", numbers).tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file, of three documents."""
    made = tmp_path / "index"
    dspex.VectorIndex([{"text": "one", "a": 1}, "three", "seventeen"], embedder=pairs).save(made)
    return made


def load(path: Any) -> dspex.VectorIndex:
    return dspex.VectorIndex.load(path, embedder=pairs)


def changed(path: Path, *statements: Any) -> Path:
    """The file after somebody has written to it with SQLite."""
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(*((statement,) if isinstance(statement, str) else statement))
    return path


ATTACKS: dict[str, tuple[Any, ...]] = {
    "a trigger": ("CREATE TRIGGER t AFTER UPDATE ON about BEGIN DELETE FROM documents; END",),
    "a view": ("ALTER TABLE documents RENAME TO d", "CREATE VIEW documents AS SELECT * FROM d"),
    "a table more": ("CREATE TABLE more (x)",),
    "a virtual table": ("CREATE VIRTUAL TABLE more USING fts5(x)",),
    "an index": ("CREATE INDEX i ON documents (text)",),
    "another table": ("DROP TABLE documents", "CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT)"),
    "no table": ("DROP TABLE about",),
    "nothing about it": ("DELETE FROM about",),
    "two things about it": ("INSERT INTO about SELECT * FROM about",),
    "a newer format": ("UPDATE about SET format = 2",),
    "a format that is text": ("UPDATE about SET format = 'x'",),
    "a huge width": ("UPDATE about SET width = 4000000000",),
    "a width below none": ("UPDATE about SET width = -2",),
    "another width": ("UPDATE about SET width = 3",),
    "a width of none": ("UPDATE about SET width = 0",),
    "a text that is a blob": ("UPDATE documents SET text = x'00ff' WHERE number = 1",),
    "a text that is none": ("UPDATE documents SET text = NULL WHERE number = 1",),
    "a text that is no UTF-8": ("UPDATE documents SET text = CAST(x'ff' AS TEXT) WHERE number = 1",),
    "an id that is none": ("UPDATE documents SET id = NULL",),
    "one id twice": ("UPDATE documents SET id = 'x'",),
    "a number below one": ("UPDATE documents SET number = -5 WHERE number = 1",),
    "a number that ends all": ("UPDATE documents SET number = 9223372036854775807 WHERE number = 1",),
    "metadata that is no JSON": ("UPDATE documents SET metadata = '{' WHERE number = 1",),
    "metadata that is no object": ("UPDATE documents SET metadata = '[1]' WHERE number = 1",),
    "metadata that is deep": (("UPDATE documents SET metadata = ?", ("[" * 200_000,)),),
    "a vector that is text": ("UPDATE documents SET vector = 'abc' WHERE number = 1",),
    "half a number": ("UPDATE documents SET vector = x'000000' WHERE number = 1",),
    "numbers that are none": (("UPDATE documents SET vector = ?", (unit(float("nan"), 1.0),)),),
    "numbers without an end": (("UPDATE documents SET vector = ?", (unit(float("inf"), 1.0),)),),
    "a vector that outweighs all": (("UPDATE documents SET vector = ?", (unit(1e30, 1.0),)),),
    "another application": ("PRAGMA application_id = 1",),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_is_no_index_of_ours_is_refused(attack: str, path: Path) -> None:
    """security: by load, and by an index that would go on in it; nothing in it is run or believed."""
    changed(path, *ATTACKS[attack])
    before = path.read_bytes()
    for use in (lambda: load(path), lambda: dspex.VectorIndex(path=path, embedder=pairs)):
        with pytest.raises(InvalidInput) as refused:
            use()
        assert (refused.value.field, str(path) in str(refused.value)) == ("path", True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("attack", ["a trigger", "a table more", "another width", "another application"])
def test_a_file_that_is_replaced_under_an_index_is_not_written_to(attack: str, path: Path) -> None:
    """security: or, where only the width is another's, gets the right one."""
    index = dspex.VectorIndex(path=path, embedder=pairs)
    changed(path, *ATTACKS[attack])
    if attack == "another width":
        assert index.add(["new"]) == 1 and len(load(path)) == 4
        return
    with pytest.raises(InvalidInput):
        index.add(["new"])
    assert len(index) == 3


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0", b"\x93NUMPY" + b"\0" * 200, b"\0" * 5000])
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    """security"""
    (tmp_path / "index").write_bytes(content)
    with pytest.raises(InvalidInput, match="no index that DSPex has saved"):
        load(tmp_path / "index")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """security: a FIFO is not waited for, nor a device read."""
    os.mkfifo(tmp_path / "fifo")
    for given in (tmp_path / "fifo", tmp_path, tmp_path / "none", "/dev/zero", "a\0b", "", 3, None, b"x"):
        with pytest.raises(InvalidInput):
            load(given)


def test_a_large_file_is_refused_unread(path: Path) -> None:
    """security: by its size, before SQLite sees it."""
    with pytest.raises(InvalidInput, match="over the limit of 1,000"):
        vector_file.VectorFile(path, most_bytes=1000).read()
    with path.open("r+b") as file:
        file.truncate(vector_file.BYTES_MOST + 1)  # a hole, of no blocks
    with pytest.raises(InvalidInput, match="over the limit"):
        load(path)


def test_too_many_documents_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """security"""
    monkeypatch.setattr(vector_file, "DOCUMENTS_MOST", 2)
    with pytest.raises(InvalidInput, match="2 documents"):
        load(path)


def test_a_value_over_the_limit_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """security: SQLite itself does not make it."""
    changed(path, ("UPDATE documents SET text = ? WHERE number = 1", ("x" * 100_000,)))
    monkeypatch.setattr(vector_file, "VALUE_MOST", 50_000)
    with pytest.raises(InvalidInput, match="damaged"):
        load(path)


def test_a_journal_beside_the_file_changes_nothing_when_it_is_read(path: Path) -> None:
    """security: what a killed process has left, or an attacker, is not rolled back by a reader; a new file drops it."""
    journal = Path(f"{path}-journal")
    journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\xff" * 4 + b"\0" * 500)
    before = path.read_bytes()
    try:
        assert len(load(path)) == 3
    except InvalidInput:
        pass
    assert path.read_bytes() == before
    dspex.VectorIndex(["new"], embedder=pairs).save(path)
    assert not journal.exists() and len(load(path)) == 1


def test_damaged_files_are_refused_or_read_as_data(path: Path) -> None:
    """security: 400 files with bytes changed, cut or repeated; any other end than these two fails."""
    good = path.read_bytes()
    dice = random.Random(11)
    refused = 0
    for turn in range(400):
        raw = bytearray(good)
        for _ in range(dice.choice((1, 3, 30))):
            raw[dice.randrange(len(raw) if turn % 2 else 4200)] = dice.randrange(256)
        if turn % 10 == 0:
            raw = raw[: dice.randrange(len(raw))]
        if turn % 10 == 1:
            raw = raw + raw
        path.write_bytes(raw)
        try:
            index = load(path)
            assert all(isinstance(passage["text"], str) for passage in index.search("x"))
        except InvalidInput as error:
            refused += error.field == "path"
    assert refused > 40


_IN_LITTLE_MEMORY = """
import resource, sys
import dspex
def pairs(texts): return [[float(len(text)), 1.0] for text in texts]
import sqlite3, numpy, dspex.retrieval.vector_index
dspex.VectorIndex(["a"], embedder=pairs).search("a")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    dspex.VectorIndex.load(sys.argv[1], embedder=pairs)
    print("loaded", end=" ")
except dspex.InvalidInput:
    print("refused", end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("width", [2, 60_000])
def test_a_file_takes_no_more_memory_than_it_is_long(width: int, path: Path) -> None:
    """security: a small file that claims much is refused at once; what is read is as long as the file."""
    changed(path, f"UPDATE about SET width = {width}", ("UPDATE documents SET text = ?", ("x" * 1_000_000,)))
    done = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE_MEMORY, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "workers")))},
    )
    end, grown = done.stdout.split()
    assert end == ("loaded" if width == 2 else "refused"), done.stderr
    assert int(grown) * (1 if sys.platform == "darwin" else 1024) < 40 * 1024 * 1024
