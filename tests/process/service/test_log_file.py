"""Unit and process: the service's log file is rotated by size, opened anew on SIGUSR1, and never a reason to stop."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dspex.cli.log_file import LogFile, LogSettings
from dspex.control import Client, run_files
from dspex.control.command_client import DirectClient
from dspex.errors import InvalidInput, NotRunning, SettingsError, UnknownName
from tests.support.service import Starter
from tests.support.waiting import eventually


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("dspex", logging.INFO, "", 0, text, (), None)


def test_it_is_rotated_by_its_size(tmp_path: Path) -> None:
    """unit: so many files of old are kept, and nobody else may read them."""
    path = tmp_path / "dspex.log"
    log = LogFile(LogSettings(path, size=1000, keep=2), path)
    for number in range(100):
        log.emit(record(f"{number:04d} " + "x" * 95))
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["dspex.log", "dspex.log.1", "dspex.log.2"]
    assert all(file.stat().st_size <= 1000 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert path.read_text().splitlines()[-1].startswith("0099")


def test_what_cannot_be_written_is_counted_and_said(tmp_path: Path) -> None:
    """unit: the folder goes and comes back; a full disk leaves no half line for later."""
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "dspex.log"
    log = LogFile(LogSettings(path), path)
    log.emit(record("first"))
    folder.rename(tmp_path / "moved")
    log.reopen()
    for _ in range(3):
        log.emit(record("lost"))
    folder.mkdir()
    log.emit(record("last"))
    assert path.read_text() == "3 log lines were lost: No such file or directory\nlast\n"
    log.stream.close()
    log.stream = Path("/dev/full").open("w")  # noqa: SIM115 - the handler closes it
    log.emit(record("lost " * 10_000))
    log.emit(record("at last"))
    assert path.read_text().endswith("last\n1 log lines were lost: No space left on device\nat last\n")
    log.close()


def test_standard_error_follows_the_file_that_it_is(tmp_path: Path) -> None:
    """process: what Python or C code writes there is never left in a file of old; another file stays what it is"""
    path, apart = tmp_path / "dspex.log", tmp_path / "apart.out"
    script = (
        "import logging, os, sys\n"
        "from pathlib import Path\n"
        "from dspex.cli.log_file import LogFile, LogSettings\n"
        "log = LogFile(LogSettings(size=100, keep=1), Path(sys.argv[1]))\n"
        "for _ in range(4):\n"
        "    log.emit(logging.makeLogRecord({'msg': 'x' * 60}))\n"
        "os.write(1, b'apart\\n'); os.write(2, b'from C\\n')\n"
    )
    with path.open("a") as err, apart.open("a") as out:
        subprocess.run([sys.executable, "-c", script, str(path)], stdout=out, stderr=err, check=True, timeout=60)
    assert path.read_text().endswith("from C\n") and path.read_text().count("x" * 60) == 1
    assert apart.read_text() == "apart\n"


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"sise": 1}, "log"),
        ("x", "log"),
        ({"size": "many"}, "log.size"),
        ({"keep": -1}, "log.keep"),
        ({"file": 1}, "log.file"),
    ],
)
def test_a_table_that_cannot_be_is_refused(table: object, key: str) -> None:
    """unit"""
    with pytest.raises(SettingsError) as refused:
        LogSettings.of({"log": table})
    assert refused.value.key == key
    with pytest.raises(SettingsError, match="no file"):
        LogFile(LogSettings(), Path("/dev/null"))


def test_sigusr1_opens_it_anew_and_never_ends_the_service(live: Starter, folder: Path) -> None:
    """process: as logrotate does it; standard error goes along, and worker output with its ids is there."""
    path = folder / "own.log"
    one = live("--log-file", str(path))
    eventually(lambda: "ready:" in path.read_text(), what="it logs there")
    path.rename(folder / "own.log.old")
    one.process.send_signal(signal.SIGUSR1)
    eventually(lambda: path.exists() and "opened anew" in path.read_text(), what="it is opened anew")
    with Client(one.socket) as client:
        client.call("faults", "print", {"text": "hello from a worker"}, session="s1")
    line = eventually(lambda: [x for x in path.read_text().splitlines() if "hello from a worker" in x])[0]
    assert "[faults/" in line and "pid=" in line and "call=" in line and "session=s1" in line
    assert "hello" not in (folder / "own.log.old").read_text()
    assert one.process.poll() is None


def test_without_a_file_sigusr1_is_said_and_ends_nothing(live: Starter) -> None:
    """process"""
    one = live()
    one.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "no file to open anew" in one.log.read_text(), what="it says so")
    assert one.process.poll() is None


def test_a_service_in_the_background_rotates_its_log(folder: Path) -> None:
    """process: [log] of the settings"""
    settings = folder / "dspex.toml"
    settings.write_text('[pools.f]\nbridge = "faults"\nsize = 1\n[log]\nsize = "2KiB"\nkeep = 3\n')
    command = [sys.executable, "-m", "dspex.cli", "start", "--daemon", "--config", str(settings)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    socket = run_files.socket_path("default", folder)
    log = socket.with_suffix(".log")
    with DirectClient(socket, role="client") as client:
        for number in range(40):
            client.call("f", "print", {"text": f"{number} {'y' * 100}"})
        eventually(lambda: len(list(folder.glob("*.log.*"))) == 3, what="it is rotated")
        eventually(lambda: "39 y" in log.read_text())
        client.stop()
    eventually(lambda: not socket.exists())


def test_the_log_is_followed_over_the_socket(live: Starter) -> None:
    """process: of one pool or one worker, with what the log file has; what is odd is refused."""
    one = live()
    with Client(one.socket) as client, DirectClient(one.socket) as operator:
        for number in range(6):
            client.call("faults", "print", {"text": f"line {number}"}, session=f"s{number}")
        following = operator.logs("faults", None, follow=True, recent=100)
        said = []
        while len(said) < 6:
            row = next(following)
            said += [row["facts"]] if row["name"] == "dspex.worker.logged" else []
        assert [facts["text"] for facts in said] == [f"line {number}" for number in range(6)]
        assert all(facts["session"] and facts["pid"] and facts["call"] for facts in said)
        worker = said[0]["worker"]
        own = [row["facts"]["worker"] for row in client.logs("faults", worker=int(worker.split("/")[1]))]
        assert set(own) == {worker}
        names = {row["name"] for row in client.logs(recent=1000)}
        assert {"dspex.worker.logged", "dspex.worker.ready", "dspex.supervisor.started"} <= names
        assert len(list(client.logs("faults", recent=2))) == 2
        with pytest.raises(UnknownName):
            list(client.logs("fault"))
        with pytest.raises(InvalidInput):
            list(client.logs(worker=1))
    with pytest.raises(NotRunning):
        DirectClient(one.socket.with_name("other.sock"))
