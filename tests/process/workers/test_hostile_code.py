"""Process: what commands do to their own worker harms their call at most, and is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspex.errors import RemoteError, WorkerBootError, WorkerDied
from dspex.events import Name
from tests.support.supervisors import Hostile
from tests.support.waiting import Caller, eventually


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("how", ["kind", "bare", "large facts", "surrogates"])
def test_a_failure_that_cannot_be_sent_as_it_is_is_an_answer(hostile: Hostile, concurrency: int, how: str) -> None:
    """Process: facts without an exact form, an odd kind, too much of them: the call's error, and the worker lives."""
    sup = hostile(concurrency=concurrency)
    with pytest.raises(RemoteError):
        sup.call("f", "fail", {"how": how}, timeout=20.0)
    assert sup.call("f", "ping")["generation"] == 1


def test_what_a_command_conceals_is_in_no_part_of_its_error(hostile: Hostile) -> None:
    """Process (X3): neither in the message nor in a cause's, nor in the facts."""
    with pytest.raises(RemoteError) as caught:
        hostile().call("f", "reveal", {"secret": "sk-12345"})
    error = caught.value
    assert "about [key]" in str(error) and "the key [key] was refused" in error.traceback
    assert "sk-12345" not in f"{error!s} {error!r} {error.traceback} {vars(error)}"


@pytest.mark.parametrize("command", ["ask", "emit"])
@pytest.mark.parametrize(("name", "given"), [("tool", [1]), (5, {}), (None, None)])
def test_a_misshapen_request_never_leaves_the_worker(hostile: Hostile, command: str, name: Any, given: Any) -> None:
    """Process: it would be no message of the protocol, and its worker would be retired."""
    sup = hostile()
    with pytest.raises(RemoteError, match="a name"):
        sup.call("f", command, {"name": name, "arguments" if command == "ask" else "facts": given})
    assert sup.call("f", "ping")["generation"] == 1


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("command", ["close_everything", "forbid_descriptors"])
def test_a_worker_that_cannot_read_any_more_ends(hostile: Hostile, concurrency: int, command: str) -> None:
    """Process: it dies at once instead of letting later calls wait, and another takes its place."""
    sup = hostile(concurrency=concurrency)
    try:
        sup.call("f", command, timeout=20.0)
    except WorkerDied:
        pass
    eventually(lambda: _generation(sup) == 2)


def test_a_worker_that_can_start_no_thread_ends(hostile: Hostile, tmp_path: Path) -> None:
    """Process: without a thread to read while calls run, it is of no use; its calls hear it, and why is in stderr."""
    sup = hostile(concurrency=8)
    busy = Caller(sup.call, "f", "forbid_threads", {"path": str(tmp_path / "begun")}, timeout=30.0)
    eventually((tmp_path / "begun").exists)
    with pytest.raises(WorkerDied) as caught:
        sup.call("f", "ping", timeout=20.0)
    assert "its runtime failed" in caught.value.stderr_tail
    with pytest.raises(WorkerDied):
        busy.outcome()


def test_a_worker_without_standard_streams_goes_on(hostile: Hostile) -> None:
    """Process: 0, 1 and 2 carry nothing that the worker needs."""
    sup = hostile()
    assert sup.call("f", "close_streams") is None
    assert sup.call("f", "ping")["generation"] == 1


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_forked_child_that_returns_answers_nobody(hostile: Hostile, concurrency: int, tmp_path: Path) -> None:
    """Process (T8): its reply reaches neither the supervisor nor a file that has the pipe's number by now."""
    sup = hostile(concurrency=concurrency)
    path = tmp_path / "file"
    assert sup.call("f", "fork_and_return", {"path": str(path)}, timeout=20.0) > 0
    assert path.read_bytes() == b""
    assert sup.call("f", "ping")["generation"] == 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_commands_may_use_multiprocessing(hostile: Hostile, method: str) -> None:
    """Process: each way to start processes works, with functions of the bridge script itself."""
    assert hostile().call("f", "squares", {"method": method}, timeout=60.0) == [1, 4, 9]


def test_a_thread_that_was_left_behind_waits_for_nothing(hostile: Hostile, tmp_path: Path) -> None:
    """Process: once its call is over, whatever it asks the supervisor is `Cancelled`."""
    sup = hostile()
    sup.call("f", "leave_a_thread", {"path": str(tmp_path / "outcome")})
    sup.call("f", "go_on")
    eventually((tmp_path / "outcome").exists)
    assert (tmp_path / "outcome").read_text() == "Cancelled"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("@bridge.command()\nasync def f(ctx): pass\n", "is async"),
        ("@bridge.command()\nasync def f(ctx):\n    yield 1\n", "is async"),
        ("@bridge.command(session='wrote')\ndef f(ctx): pass\n", "'wrote'"),
    ],
)
def test_a_command_that_could_never_work_is_refused_at_the_start(
    hostile: Hostile, tmp_path: Path, source: str, text: str
) -> None:
    """Process: the pool says so, instead of every call."""
    path = tmp_path / "mistaken.py"
    path.write_text(f"from dspex_worker.bridge import Bridge\nbridge = Bridge('mistaken')\n{source}")
    with pytest.raises(WorkerBootError, match=text):
        hostile(bridge=str(path))


def test_echo_gives_back_whatever_its_arguments_are_called(hostile: Hostile) -> None:
    """Process: also one that bears the name of a parameter."""
    assert hostile().call("f", "echo", {"ctx": 1, "self": 2}) == {"ctx": 1, "self": 2}


def _generation(sup: Any) -> int:
    try:
        return int(sup.call("f", "ping", timeout=20.0)["generation"])
    except WorkerDied:
        return 0


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "lambda *_: os.waitpid(-1, os.WNOHANG)"])
def test_an_import_that_takes_sigchld_does_not_take_the_forkservers_children(
    hostile: Hostile, tmp_path: Path, handler: str
) -> None:
    """Process (T3): the fork server still learns how its workers end, and lives on; the workers have what was set."""
    path = tmp_path / "taking.py"
    path.write_text(
        "import os, signal\nfrom dspex_worker.bridge import Bridge\nbridge = Bridge('taking')\n"
        f"handler = {handler}\nsignal.signal(signal.SIGCHLD, handler)\n"
        "@bridge.command()\ndef exit(ctx): os._exit(7)\n"
        "@bridge.command()\ndef is_set(ctx): return signal.getsignal(signal.SIGCHLD) == handler\n"
    )
    sup = hostile(bridge=str(path))
    lost: list[Any] = []
    sup.on_event(lambda event: lost.append(event) if event.name == Name.FORKSERVER_LOST else None)
    assert sup.call("f", "is_set") is True
    for _ in range(2):
        with pytest.raises(WorkerDied) as caught:
            sup.call("f", "exit", timeout=20.0)
        assert caught.value.exit_code == 7
        eventually(lambda: _generation(sup) > 0)
    assert lost == []
