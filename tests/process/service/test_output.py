"""Unit and process: nothing that is wrong with its output stops `dspex start`, holds it up or changes its exit code."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dspex.cli.stderr_log import LineHandler
from dspex.control import run_files
from dspex.control.command_client import DirectClient
from dspex.errors import NotRunning
from tests.support.waiting import eventually

COMMAND = [sys.executable, "-m", "dspex.cli"]


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("dspex", logging.INFO, "", 0, text, (), None)


def drained(descriptor: int) -> str:
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while more := os.read(descriptor, 65536):
            data += more
    except BlockingIOError:
        pass
    return data.decode()


def test_lines_that_cannot_be_written_are_counted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: a full disk that has room again"""
    reading, writing = os.pipe()
    handler = LineHandler(writing)
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    handler.emit(record("first"))
    monkeypatch.setattr("dspex.cli.stderr_log.os.write", full)
    for _ in range(3):
        handler.emit(record("lost"))
    monkeypatch.setattr("dspex.cli.stderr_log.os.write", real)
    handler.emit(record("last"))
    assert drained(reading) == "first\n3 log lines were lost: No space left on device\nlast\n"
    os.close(reading)
    os.close(writing)


def test_nobody_waits_for_a_reader_that_reads_nothing() -> None:
    """unit: a thousand lines into a full pipe, and what fits once it is read; it would block for ever"""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    handler = LineHandler(writing)
    for number in range(1000):
        handler.emit(record(f"line {number} " + "x" * 100))
    assert "line 0 " in drained(reading)
    handler.emit(record("again"))
    said = drained(reading)
    assert "log lines were lost: nobody reads it\n" in said and said.endswith("again\n")
    os.close(reading)
    os.close(writing)


def test_a_line_that_was_torn_ends_before_the_next() -> None:
    """unit: its second half met a full pipe"""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    handler = LineHandler(writing)
    handler.emit(record("y" * 10_000))
    first = drained(reading)
    handler.emit(record("whole"))
    assert (first + drained(reading)).splitlines()[1:] == ["1 log lines were lost: nobody reads it", "whole"]
    os.close(reading)
    os.close(writing)


def into_full_device() -> tuple[int, Callable[[], None]]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    return descriptor, lambda: os.close(descriptor)


def into_full_pipe() -> tuple[int, Callable[[], None]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4096)
    return writing, lambda: (os.close(reading), os.close(writing), None)[2]


def into_broken_pipe() -> tuple[int, Callable[[], None]]:
    reading, writing = os.pipe()
    os.close(reading)
    return writing, lambda: os.close(writing)


@pytest.mark.parametrize("output", [into_full_device, into_full_pipe, into_broken_pipe])
def test_a_service_whose_log_cannot_be_written_serves_and_stops_with_0(
    folder: Path, settings: Path, output: Callable[[], tuple[int, Callable[[], None]]]
) -> None:
    """process"""
    descriptor, close = output()
    process = subprocess.Popen([*COMMAND, "start", "--config", str(settings)], stdout=descriptor, stderr=descriptor)
    try:
        eventually(lambda: answers(folder, process), what="it answers", within=30.0)
        process.send_signal(signal.SIGHUP)
        with DirectClient(run_files.socket_path("default", folder)) as operator:
            assert operator.health()["faults"]["state"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20.0) == 0
    finally:
        process.kill()
        process.wait()
        close()


def test_a_service_without_standard_descriptors_serves_and_stops_with_0(folder: Path, settings: Path) -> None:
    """process: no socket of its own gets the numbers 0 to 2, where others print"""
    words = f"exec {' '.join(COMMAND)} start --config {settings} <&- >&- 2>&-"
    process = subprocess.Popen(["/bin/sh", "-c", words])
    try:
        eventually(lambda: answers(folder, process), what="it answers", within=30.0)
        files = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]  # noqa: PTH115
        assert files == ["/dev/null"] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20.0) == 0
    finally:
        process.kill()
        process.wait()


def answers(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"it ended with {process.returncode}"
    try:
        with DirectClient(run_files.socket_path("default", folder)) as operator:
            return bool(operator.health()["faults"]["is_ready"])
    except NotRunning:
        return False


@pytest.mark.parametrize("output", ["2>&-", "2>/dev/full"])
def test_a_command_that_cannot_say_its_error_has_its_exit_code(folder: Path, output: str) -> None:
    """process: 3, nobody runs"""
    done = subprocess.run(["/bin/sh", "-c", f"exec {' '.join(COMMAND)} health {output}"], timeout=30.0, check=False)
    assert done.returncode == 3
