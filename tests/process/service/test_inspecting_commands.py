"""Process: `dspex calls`, `cancel`, `stacks`, `sessions`, `clients` and `logs` of a service whose workers all hang."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dspex.control import Client
from dspex.errors import CallCancelled
from tests.support.service import Starter
from tests.support.waiting import eventually

COMMAND = [sys.executable, "-m", "dspex.cli"]
BRIDGE = Path(__file__).parents[2] / "support" / "pools" / "stuck_bridge.py"


def dspex(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60)


def as_json(*words: str) -> Any:
    done = dspex(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_operator_finds_and_ends_what_hangs(live: Starter, settings: Path) -> None:
    """process: as the guide has it; also as JSON, and with exit codes that say what was found."""
    settings.write_text(f'[pools.faults]\nbridge = "{BRIDGE}"\nsize = 1\nconcurrency = 1\nqueue_limit = 1\n')
    one = live()
    with Client(one.socket) as client:
        ended: list[BaseException] = []

        def call(session: str | None) -> None:
            try:
                client.call("faults", "sum_in_c", {"secret": "sk-nobodys-business"}, session=session)
            except CallCancelled as error:
                ended.append(error)

        threads = [threading.Thread(target=call, args=(name,)) for name in ("talk", None)]
        threads[0].start()
        eventually(lambda: any(row["phase"] == "running" for row in client.calls()))
        threads[1].start()
        eventually(lambda: len(client.calls()) == 2, what="one runs, one waits")

        running, queued = as_json("calls")
        assert (running["phase"], running["worker"], running["session"]) == ("running", "faults/0", "talk")
        assert queued["phase"] == "queued" and running["client"] == queued["client"]
        shown = dspex("calls", "faults", "--limit", "1").stdout
        assert "sum_in_c" in shown and "talk" in shown and str(queued["id"]) not in shown.split("\n")[1].split()[0]
        assert [row["session"] for row in as_json("sessions", "faults")] == ["talk"]
        assert running["client"] in dspex("clients").stdout
        assert {row["role"] for row in as_json("clients")} == {"client", "operator"}

        stacks = dspex("stacks", "faults/0")
        assert stacks.returncode == 0 and "in sum_in_c" in stacks.stdout and "talk" in stacks.stdout, stacks.stderr
        assert "execution.py" not in stacks.stdout and "execution.py" in dspex("stacks", "faults/0", "--all").stdout
        assert as_json("stacks", str(running["pid"]))["calls"][0]["id"] == running["id"]
        assert "sk-nobodys" not in stacks.stdout + shown

        assert as_json("cancel", str(queued["id"])) == {"call": queued["id"], "cancelled": True}
        assert dspex("cancel", str(queued["id"])).returncode == 1
        assert dspex("cancel", str(running["id"])).stdout == f"call {running['id']} is cancelled\n"
        for thread in threads:
            thread.join()
        assert len(ended) == 2
        eventually(lambda: not client.calls(), what="the worker is replaced")
    assert "dspex.worker.killed" in dspex("logs", "faults", "--worker", "0").stdout
    rows = [json.loads(line) for line in dspex("logs", "-n", "2", "--json").stdout.splitlines()]
    assert len(rows) == 2 and all(row["facts"]["pool"] == "faults" for row in rows)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["stacks", "faults/7"], 1, "faults/0"),
        (["calls", "fault"], 1, "faults"),
        (["logs", "--worker", "1"], 2, "pool"),
        (["logs", "fault"], 1, "faults"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(live: Starter, words: list[str], code: int, said: str) -> None:
    """process"""
    live()
    done = dspex(*words)
    assert said in done.stderr and done.returncode == code and not done.stdout
