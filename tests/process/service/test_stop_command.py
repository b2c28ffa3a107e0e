"""Process: `dspex stop` and the service's own exit tell what became of the calls, and of the process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dspex import errors
from dspex.cli import main
from dspex.control import Client, dial, process_identity, run_files, warm_stop
from dspex.control.command_client import DirectClient
from dspex.control.warm_stop import StopRequest
from tests.support.service import Caller, Live, Starter, is_gone
from tests.support.waiting import eventually, freeze

Out = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-m", "dspex.cli"]


def is_closed(one: Live) -> bool:
    with Client(one.socket) as client:
        return client.health()["faults"]["state"] == "closed"


# -- how it went --


@pytest.mark.parametrize("words", [["--now"], ["--grace", "0.1"], ["--grace", "0"]])
def test_a_call_that_is_cut_makes_both_exit_1(live: Starter, capsys: Out, words: list[str]) -> None:
    """process: and the log and the operator hear how many"""
    one = live()
    caller = Caller(one, 60.0)
    assert main(["stop", *words]) == 1
    assert "1 call(s) were running and have been cut" in capsys.readouterr().out
    assert one.process.wait(timeout=10.0) == 1
    assert "1 calls are cut" in one.log.read_text()
    caller.join()
    assert isinstance(caller.outcome, errors.InterruptedCall | errors.UnavailableError)


def test_a_grace_of_the_command_line_that_cuts_a_call_is_1_too(live: Starter) -> None:
    """process: by a signal; nobody asks through the socket"""
    one = live("--grace", "0.1")
    caller = Caller(one, 60.0)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(timeout=10.0) == 1
    caller.join()
    assert "1 calls are cut" in one.log.read_text()


def test_stops_that_are_asked_for_again_stay_soft(live: Starter) -> None:
    """process: two operators, who do not know of each other"""
    one = live()
    caller = Caller(one, 2.0)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(subprocess.run, [*COMMAND, "stop"], timeout=30.0, check=False)
        eventually(lambda: is_closed(one), what="the stop has begun")
        assert main(["stop"]) == 0
        assert first.result().returncode == 0
    caller.join()
    assert caller.outcome == 2.0
    assert one.process.wait(timeout=10.0) == 0
    assert "asked to stop again, by a client's request" in one.log.read_text()


def test_now_hurries_a_stop_that_is_under_way(live: Starter) -> None:
    """process"""
    one = live()
    caller = Caller(one, 60.0)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(subprocess.run, [*COMMAND, "stop"], timeout=30.0, check=False)
        eventually(lambda: is_closed(one), what="the stop has begun")
        assert main(["stop", "--now"]) == 1
        assert first.result().returncode == 1
    caller.join()
    assert one.process.wait(timeout=10.0) == 1


class OneCall:
    """A supervisor's face for `finish_calls`: one call runs until it is told."""

    pools = ("p",)
    calls = 1

    def pool(self, name: str) -> OneCall:
        return self

    @property
    def lifecycle(self) -> OneCall:
        return self

    def close(self) -> None: ...

    def stats(self) -> dict[str, dict[str, int]]:
        return {"p": {"in_flight": self.calls}}


@pytest.mark.parametrize(
    ("wishes", "asked", "cut"),
    [
        ([StopRequest(None), StopRequest(None), StopRequest(None)], 6, 0),
        ([StopRequest(None), StopRequest(None, is_signal=True)], 6, 0),
        ([StopRequest(None, is_signal=True), StopRequest(None), StopRequest(None)], 6, 0),
        ([StopRequest(None, is_signal=True), StopRequest(None, is_signal=True)], 1, 1),
        ([StopRequest(None), StopRequest(None, is_signal=True), StopRequest(None, is_signal=True)], 2, 1),
        ([StopRequest(None, is_signal=True), StopRequest(0.0)], 1, 1),
        ([StopRequest(None), StopRequest(3600.0), StopRequest(0.0)], 2, 1),
    ],
)
def test_only_a_second_signal_or_no_grace_ends_running_calls(wishes: list[StopRequest], asked: int, cut: int) -> None:
    """unit: the call ends by itself after the sixth look"""
    one, looks = OneCall(), 0

    def next_request(seconds: float) -> StopRequest | None:
        nonlocal looks
        looks += 1
        one.calls = int(looks < 6)
        return wishes[looks] if looks < len(wishes) else None

    assert warm_stop.finish_calls(one, 60.0, first=wishes[0], next_request=next_request) == cut  # type: ignore[arg-type]
    assert looks == asked


# -- a service that does not take the wish --


def refusing(error: BaseException) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise error

    return refuse


@pytest.mark.parametrize(
    "error",
    [
        errors.TooManyClients(clients=64, limit=64),
        errors.ProtocolError("The supervisor refuses: it is full."),
        errors.Unresponsive("there", "stop", timeout=10.0),
        errors.ConnectionLost("there", "reset", what="stop"),
        OSError(24, "Too many open files"),
        RuntimeError("can't start new thread"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_error_a_stop_falls_back_to_the_signal(
    live: Starter, capsys: Out, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """process: soft as the wish was"""
    one = live()
    monkeypatch.setattr(DirectClient, "stop", refusing(error))
    assert main(["stop"]) == 0
    assert "by a signal" in capsys.readouterr().out
    assert one.process.wait(timeout=10.0) == 0
    assert "stopping on SIGTERM" in one.log.read_text()


@pytest.mark.parametrize("error", [errors.TooManyClients(clients=1, limit=1), OSError(24, "Too many open files")])
def test_whatever_the_error_now_kills(
    live: Starter, capsys: Out, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """process: the connection itself fails"""
    one = live()
    pids = one.workers()
    monkeypatch.setattr(DirectClient, "__init__", refusing(error))
    assert main(["stop", "--now"]) == 1
    assert f"killed default (pid {one.process.pid})" in capsys.readouterr().out
    assert one.process.wait(timeout=10.0) == -signal.SIGKILL
    eventually(lambda: all(map(is_gone, pids)), what="workers and fork server are gone")


def test_a_soft_fallback_whose_call_is_cut_is_1(live: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: what became of the calls comes by the run file, not by the connection"""
    one = live("--grace", "0.1")
    caller = Caller(one, 60.0)
    monkeypatch.setattr(DirectClient, "stop", refusing(OSError(24, "Too many open files")))
    assert main(["stop"]) == 1
    caller.join()
    assert one.process.wait(timeout=10.0) == 1


def test_as_many_clients_as_there_are_places_do_not_keep_a_stop_out(live: Starter, capsys: Out) -> None:
    """process: with --max-clients; every operator's command works, a call is refused with both figures"""
    one = live("--max-clients", "3")
    held = [Client(one.socket) for _ in range(3)]
    for words in (["status"], ["health"], ["events"], ["resize", "faults", "2"], ["recycle", "faults"]):
        assert main(words) == 0, words
    capsys.readouterr()
    assert main(["call", "faults", "echo"]) == 1
    assert "takes 3 clients and has 3" in capsys.readouterr().err
    assert main(["stop", "--now"]) == 0
    for client in held:
        client.close()


def test_the_settings_say_how_many_clients(live: Starter, settings: Path, capsys: Out) -> None:
    """process: the command line goes over it"""
    settings.write_text(settings.read_text() + "\n[control]\nmax_clients = 2\n")
    for options, limit in (((), 2), (("--max-clients", "5"), 5)):
        one = live(*options)
        with DirectClient(one.socket) as operator:
            assert operator.status()["supervisor"]["max_clients"] == limit
        assert main(["stop"]) == 0
    for wrong in ("max_clients = 0", "max_clients = 'many'", "max_client = 3"):
        settings.write_text(settings.read_text().partition("[control]")[0] + f"[control]\n{wrong}\n")
        assert main(["start", "--config", str(settings)]) == 2
        assert "max_clients" in capsys.readouterr().err


# -- a service whose process cannot be identified --


@pytest.fixture
def unshare() -> str:
    found = shutil.which("unshare")
    if found is None or subprocess.run([found, "-p", "-f", "--mount-proc", "true"], check=False).returncode:
        pytest.skip("this user cannot make a pid namespace")
    return found


@pytest.fixture
def contained(unshare: str, settings: Path, folder: Path) -> Callable[[], Live]:
    """A maker of services in a pid namespace of their own; `unshare --kill-child` ends what is left."""

    def start() -> Live:
        log = folder / "contained.out"
        with log.open("wb") as out:
            start = [unshare, "-p", "-f", "--kill-child", "--mount-proc", *COMMAND, "start", "--config", str(settings)]
            process = subprocess.Popen(start, stdout=out, stderr=out)
        one = Live(process, run_files.socket_path("default", folder), log)
        eventually(lambda: "ready:" in log.read_text() or process.poll() is not None, what="it is ready", within=30.0)
        assert process.poll() is None, log.read_text()
        return one

    return start


def end(one: Live) -> None:
    one.process.kill()
    one.process.wait(timeout=10.0)


def test_a_service_in_another_namespace_is_stopped_and_waited_for(contained: Callable[[], Live], capsys: Out) -> None:
    """process: its run file numbers it otherwise; the listener's pid is the kernel's own word"""
    one = contained()
    assert main(["status"]) == 0
    assert main(["stop"]) == 0
    assert one.process.wait(timeout=0.5) == 0
    assert "stopped default" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["stop", "--now"], ["stop"], ["start"]])
def test_a_frozen_service_in_another_namespace_is_not_said_to_be_gone(
    contained: Callable[[], Live], capsys: Out, monkeypatch: pytest.MonkeyPatch, settings: Path, words: list[str]
) -> None:
    """process: it lives and does not answer; its number means another process here, and that is not touched"""
    one = contained()
    with DirectClient(one.socket) as client:
        pid = client.peer_pid
    assert pid > 1
    freeze(pid)
    try:
        monkeypatch.setattr(dial, "HELLO_PATIENCE", 0.3)
        options = ["--config", str(settings)] if words == ["start"] else []
        code = main([*words, *options])
        said = capsys.readouterr()
        assert code == (2 if words == ["start"] else 1), said
        assert "stopped" not in said.out and "killed" not in said.out
        assert "runs already" in said.err if words == ["start"] else "cannot be signalled" in said.err
        assert not is_gone(pid)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a start that failed has put it back
    finally:
        os.kill(pid, signal.SIGCONT)
        end(one)


def test_a_service_is_stopped_from_a_namespace_that_cannot_see_it(live: Starter, unshare: str, folder: Path) -> None:
    """process: its end is seen by the lock on its run file"""
    one = live()
    caller = Caller(one, 1.0)
    stop = [unshare, "-p", "-f", "--kill-child", "--mount-proc", *COMMAND, "stop"]
    done = subprocess.run(stop, capture_output=True, text=True, timeout=60.0, check=False)
    assert done.returncode == 0, done.stderr
    assert "stopped default" in done.stdout
    assert one.process.wait(timeout=0.5) == 0
    caller.join()
    assert caller.outcome == 1.0


def test_an_end_that_cannot_be_seen_is_not_claimed(live: Starter, unshare: str, settings: Path, capsys: Out) -> None:
    """process: neither a number that means anything here nor a lock, as from a version without one"""
    one = live()
    path = run_files.run_file_of(one.socket)
    text = path.read_text().replace('"is_locked": true', '"is_locked": false')
    path.write_text(text)  # in place: a file of another identity would be taken for swept, and written anew
    stop = [unshare, "-p", "-f", "--kill-child", "--mount-proc", *COMMAND, "stop"]
    done = subprocess.run(stop, capture_output=True, text=True, timeout=60.0, check=False)
    assert done.returncode == 1, done.stdout
    assert "was asked to stop, and whether its process has ended cannot be told" in done.stderr
    assert done.stdout == ""
    assert one.process.wait(timeout=10.0) == 0


def test_many_stops_at_once_all_see_the_end(live: Starter) -> None:
    """process"""
    one = live()
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(main(["stop"]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60.0)
    assert set(codes) <= {0, 3}, codes  # 3: it was gone before this one asked
    assert codes.count(0) >= 1
    assert one.process.wait(timeout=10.0) == 0


@pytest.mark.parametrize("words", [[], ["--now"]])
def test_another_process_with_the_owners_numbers_is_not_signalled(folder: Path, capsys: Out, words: list[str]) -> None:
    """process: a run file that outlived a reboot names a pid and a start that others have now, without its lock"""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        path = run_files.socket_path("reborn", folder)
        run = run_files.new_run_file("reborn", path, "service")
        start = process_identity.start_time_of(bystander.pid)
        assert start is not None
        old = replace(run, pid=bystander.pid, start_time=start, is_locked=True)
        run_files.run_file_of(path).write_text(json.dumps(asdict(old)))
        assert main(["stop", *words, "--socket", str(path)]) != 0
        assert bystander.poll() is None
        bystander.kill()
