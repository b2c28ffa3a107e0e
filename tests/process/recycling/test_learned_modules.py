"""Process: workers are forked with the modules that calls have named, in the version that the files have."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.events import Event, Name
from tests.support.waiting import eventually, is_alive

Write = Callable[..., str]
PROGRAM = """
import dspy
{above}
class Saying(dspy.Module):
    def forward(self):
        return {value}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of the user's into a folder on this process's path; gives the path of its class."""
    monkeypatch.syspath_prepend(str(tmp_path))
    edits = iter(range(1, 100))

    def make(name: str, value: str = "'first'", above: str = "") -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(PROGRAM.format(above=above, value=value))
        later = time.time() + next(edits)  # an editor's clock is slower than this test
        os.utime(path, (later, later))
        return f"{name}:Saying"

    yield make


def _supervisor(**settings: Any) -> dspex.Supervisor:
    return dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, **settings)])


def _has(sup: dspex.Supervisor, module: str) -> bool:
    """Whether a worker has imported it before any call named it there."""
    found: bool = dspex.function(lambda name: name in __import__("sys").modules, supervisor=sup)(name=module)
    return found


def test_what_is_named_before_the_start_is_there_from_the_start(write: Write) -> None:
    """process"""
    with _supervisor_of(write("learned_early")) as (sup, program):
        assert _has(sup, "learned_early") and program() == "first"


def test_what_is_named_later_is_there_in_successors(write: Write) -> None:
    """process: after a planned replacement at once, after deaths as soon as a fork server has been warmed with it."""
    with _supervisor() as sup:
        sup.wait_ready()
        path = write("learned_later")
        assert not _has(sup, "learned_later")
        assert dspex.module(path, supervisor=sup)() == "first"
        sup.pool("dspy").recycle()
        assert _has(sup, "learned_later")

        again = write("learned_again")
        dspex.module(again, supervisor=sup)()
        warmed: list[Event] = []
        sup.on_event(lambda event: warmed.append(event) if event.name is Name.FORKSERVER_WARMED else None)
        _kill_worker(sup)
        eventually(lambda: len(warmed) > 0, within=20.0, what="a fork server that has it is warm")
        _kill_worker(sup)
        assert _has(sup, "learned_again")


@pytest.mark.parametrize("value", ["raise SystemExit(3)", "import no_such_module_of_anybody", "1 / 0"])
def test_what_cannot_be_imported_keeps_no_worker_from_starting(write: Write, value: str) -> None:
    """process: named before the start and later; the call's error says what is wrong."""
    with _supervisor_of(write("learned_broken", above=value)) as (sup, program):
        with pytest.raises(dspex.RemoteError):
            program()
        sup.pool("dspy").recycle()
        assert dspex.function(lambda: 1, supervisor=sup)() == 1


def test_a_module_that_ends_its_process_keeps_no_worker_from_starting(write: Write) -> None:
    """process: nor one that leaves a thread behind, which no fork survives."""
    with _supervisor_of(write("learned_fatal", above="import os; os._exit(7)")) as (sup, program):
        assert dspex.function(lambda: 1, supervisor=sup)() == 1
        with pytest.raises(dspex.WorkerDied):
            program()
        assert dspex.function(lambda: 2, supervisor=sup)() == 2
    threaded = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    with _supervisor() as sup:
        assert dspex.module(write("learned_threaded", above=threaded), supervisor=sup)() == "first"
        sup.pool("dspy").recycle()
        assert not _has(sup, "learned_threaded")


def test_a_stop_while_a_fork_server_imports_what_was_learned_is_no_failure(write: Write, tmp_path: Path) -> None:
    """process: it ends with the others at once, and nobody is told that it failed."""
    slowly, begun = tmp_path / "slowly", tmp_path / "begun"
    above = (
        f"import os, pathlib, time\nif os.path.exists({str(slowly)!r}):\n"
        f"    pathlib.Path({str(begun)!r}).write_text(str(os.getpid()))\n    time.sleep(600)\n"
    )
    told: list[Event] = []
    with _supervisor() as sup:
        sup.on_event(told.append)
        assert dspex.module(write("learned_slowly", above=above), supervisor=sup)() == "first"
        slowly.touch()
        _kill_worker(sup)  # a fork server is warmed before the next successor
        pid = int(eventually(lambda: begun.exists() and begun.read_text(), within=20.0, what="it imports"))
        assert is_alive(pid)
    assert not is_alive(pid)
    assert not [event for event in told if event.name in (Name.FORKSERVER_FAILED, Name.FORKSERVER_LOST)]


def test_an_edited_module_is_the_new_one(write: Write) -> None:
    """process: also where what it imports beside it was edited, and where successors were forked with the old one."""
    with _supervisor() as sup:
        write("learned_helper", "'old helper'")
        above = "import learned_helper"
        path = write("learned_edited", "learned_helper.Saying()()", above)
        old = dspex.module(path, supervisor=sup)
        assert old() == "old helper"
        write("learned_helper", "'new helper'")
        new = dspex.module(path, supervisor=sup)
        assert (new(), old()) == ("new helper", "old helper")
        sup.pool("dspy").recycle()
        write("learned_edited", "'edited'")
        assert dspex.module(path, supervisor=sup)() == "edited"


def test_an_edited_package_is_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: any file of it; of equal length, within the same second."""
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "learned_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "inner" / "__init__.py").write_text("WORD = 'one'\n")
    (package / "programs.py").write_text("from .inner import WORD\n\ndef say(times):\n    return WORD * times\n")
    with _supervisor() as sup:
        assert dspex.function("learned_package.programs:say", supervisor=sup)(times=2) == "oneone"
        (package / "inner" / "__init__.py").write_text("WORD = 'two'\n")
        assert dspex.function("learned_package.programs:say", supervisor=sup)(times=2) == "twotwo"


class _supervisor_of:
    def __init__(self, path: str) -> None:
        self._sup = _supervisor()
        self._program = dspex.module(path, supervisor=self._sup)

    def __enter__(self) -> tuple[dspex.Supervisor, Any]:
        return self._sup.start(), self._program

    def __exit__(self, *_: object) -> None:
        self._sup.stop(grace=0.0)


def _kill_worker(sup: dspex.Supervisor) -> None:
    pid = dspex.function(os.getpid, supervisor=sup)()
    with pytest.raises(dspex.WorkerDied):
        dspex.function(lambda pid: __import__("os").kill(pid, 9), supervisor=sup)(pid=pid)
