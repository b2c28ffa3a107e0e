"""Process: what workers print, warn and log reaches the logger `dspex.worker.<pool>`; a flood hurts nobody."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex_worker.output_limit import BURST_S, BYTES_S, LINES_S
from tests.support.programs import seen_programs
from tests.support.waiting import SOON, eventually

OWN = "tests.support.programs.seen_programs"


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, text: str) -> Any:
        """Return the record with this text, once it is there."""
        found = lambda: [each for each in self.records if text in each.getMessage()]  # noqa: E731
        return eventually(found, what=text)[0]


@pytest.fixture
def log() -> Iterator[Kept]:
    handler = Kept()
    logger = logging.getLogger("dspex.worker")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here: a module's supervisor starts its workers when a test first needs them."""


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("f", size=2, bridge="faults")]
    with dspex.Supervisor(pools=pools) as running:
        yield running


@pytest.mark.parametrize(
    ("text", "level", "source"),
    [
        ("print w", logging.INFO, "stdout"),
        ("stderr w", logging.WARNING, "stderr"),
        ("warning w", logging.WARNING, "stderr"),
        ("info w", logging.INFO, "my.app"),
        ("warned w", logging.WARNING, "my.app"),
        ("raw w", logging.INFO, "stderr"),
        ("child w", logging.INFO, "stderr"),
        ("thread w", logging.INFO, "stdout"),
        ("unfinished", logging.INFO, "stdout"),
    ],
)
def test_everything_that_a_module_writes_is_logged(
    sup: dspex.Supervisor, log: Kept, text: str, level: int, source: str
) -> None:
    """process: with its level, where it came from, the worker, its pid and the call."""
    assert dspex.module(f"{OWN}:Speaking", supervisor=sup)(word="w") == "w"
    record = log.of(text)
    assert (record.name, record.levelno, record.source) == ("dspex.worker.dspy", level, source)
    pid = sup.stats()["dspy"]["workers"][0]["pid"]
    assert (record.worker, record.pid) == ("dspy/0", pid)
    assert record.call > 0 or source == "stderr"


def test_rows_of_dspys_executors_are_the_calls(sup: dspex.Supervisor, log: Kept) -> None:
    """process: in threads that DSPy starts."""
    assert dspex.module(f"{OWN}:Chattering", supervisor=sup)(words=["a", "b"]) == ["a", "b"]
    assert log.of("row a").call == log.of("row b").call > 0


def test_a_live_module_of_the_hosts_own_speaks_too(sup: dspex.Supervisor, log: Kept) -> None:
    """process"""
    dspex.module(seen_programs.Speaking, supervisor=sup)(word="live")
    assert log.of("print live")


def test_lines_cannot_pass_for_others_and_hold_no_keys(sup: dspex.Supervisor, log: Kept) -> None:
    """process: control characters are shown, further lines indented, what looks like a key is taken out."""
    sup.call("f", "print", {"text": "api_key=sk-abcdefghijklmnop \x1b[2J\nERROR dspex forged"})
    records = [log.of("api_key"), log.of("forged")]
    assert "sk-abc" not in records[0].getMessage() and "\\x1b[2J" in records[0].getMessage()
    assert all(line.startswith(("[f/", "    ")) for each in records for line in each.getMessage().split("\n"))


def test_what_a_dead_worker_had_printed_is_in_the_error_and_in_the_log(sup: dspex.Supervisor, log: Kept) -> None:
    """process: as ever."""
    with pytest.raises(dspex.WorkerDied) as caught:
        _die(sup)
    assert "last words" in caught.value.stderr_tail
    assert log.of("last words").worker.startswith("f/")


def _die(sup: dspex.Supervisor) -> None:
    with sup.session("f", "dying") as session:
        session.call("print", {"text": "last words"})
        session.call("exit", {"code": 3})


@pytest.mark.parametrize("command", ["print", "flood_stderr"])
def test_a_flood_is_bounded_counted_and_hurts_nobody(sup: dspex.Supervisor, log: Kept, command: str) -> None:
    """process: 200 MB through the pipe, 40 MB printed; memory stays, others go on, the log says what is missing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = ("x" * 99 + "\n") * 80_000  # what a frame holds
    calls = [{"bytes": 200 * 1024 * 1024}] if command == "flood_stderr" else [{"text": text}] * 5
    began, slowest = time.monotonic(), 0.0
    flood = threading.Thread(target=lambda: [sup.call("f", command, given) for given in calls])
    flood.start()
    while flood.is_alive():
        asked = time.monotonic()
        sup.call("f", "echo", {"n": 1})
        slowest = max(slowest, time.monotonic() - asked)
    flood.join()
    seconds = time.monotonic() - began
    assert slowest < SOON
    assert log.of("were dropped").levelno == logging.WARNING
    lines = [each for each in log.records if "xxx" in each.getMessage() or "were dropped" not in each.getMessage()]
    assert sum(each.getMessage().count("\n") + 1 for each in lines) < 2 * (LINES_S * (BURST_S + seconds) + 100)
    assert sum(len(each.getMessage()) for each in lines) < 4 * BYTES_S * (BURST_S + seconds)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 150 * 1024


def test_the_host_sees_warnings_without_any_handler(tmp_path: Any) -> None:
    """process: by logging's last resort; what is less is not shown, and no handler is added."""
    import subprocess
    import sys

    script = tmp_path / "host.py"
    script.write_text(
        "import logging, dspex\n"
        f"with dspex.Supervisor(pools=[dspex.PoolConfig('dspy', size=1)]) as sup:\n"
        f"    dspex.module('{OWN}:Speaking', supervisor=sup)(word='w')\n"
        "    sup.flush_events()\n"
        "assert not logging.getLogger('dspex').handlers and not logging.root.handlers\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert "warned w" in done.stderr and "print w" not in done.stderr
