"""Process: under uvicorn, on asyncio and uvloop, with the supervisor started and stopped by the ASGI lifespan."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import pytest

from tests.process.hosts.conftest import Hosts
from tests.support.hosts.host import EXIT_WITHIN, SLACK, Host, gone
from tests.support.paths import ROOT
from tests.support.waiting import eventually, is_alive

pytest.importorskip("uvicorn")


def serve(hosts: Hosts, *options: str) -> Host:
    command = [sys.executable, "-m", "uvicorn", "--fd", "{fd}", "--app-dir", str(ROOT), "--lifespan", "on", *options]
    host = hosts([*command, "tests.support.hosts.web:served"], listen=True, env={"HOST_SUPERVISOR": "lifespan"})
    host.heard("imported")
    return host


def facts(host: Host) -> dict[str, Any]:
    """What a serving process says of itself once its pool is complete."""

    def found() -> dict[str, Any] | None:
        answer = host.try_get("/facts")
        return answer if answer and len(answer.get("workers", ())) == 2 and all(answer["workers"]) else None

    given: dict[str, Any] = eventually(found, within=30.0, what=f"a complete pool\n{host.log()}")
    return given


@pytest.mark.parametrize(("loop", "number"), [("asyncio", signal.SIGTERM), ("uvloop", signal.SIGINT)])
def test_serving_and_stopping(hosts: Hosts, loop: str, number: int) -> None:
    """Process: answers, streams, an unchanged signal handling, a cancelled call, a clean end."""
    pytest.importorskip(loop)
    host = serve(hosts, "--loop", loop)
    first = facts(host)
    assert first["changed_handlers"] == []
    assert first["loop"].startswith(loop)
    assert [host.get("/", command="echo", n=n)["value"] for n in range(10)] == [{"n": n} for n in range(10)]
    assert host.get("/stream", command="count", n=40)["value"] == list(range(40))
    with host.ask("/?command=spin&seconds=600"):
        eventually(lambda: facts(host)["in_flight"] == 1, what="the call runs")
    assert host.heard("disconnected") == ["/"]
    eventually(lambda: facts(host)["in_flight"] == 0, what="its slot is free")
    last = facts(host)
    assert last["workers"] == first["workers"]
    assert last["counts"]["cancelled"] == 1
    host.signal(number)
    host.finish(code=None)
    assert [line for line in host.said() if "stopped" in line], host.log()


def test_stopping_with_calls_in_flight(hosts: Hosts) -> None:
    """Process: what uvicorn cancels after its own grace does not hold up the end."""
    host = serve(hosts, "--timeout-graceful-shutdown", "1")
    with host.ask("/?command=spin&seconds=600"):
        eventually(lambda: facts(host)["in_flight"] == 1, what="the call runs")
        began = time.monotonic()
        host.signal(signal.SIGTERM)
        host.finish(code=None)
        assert time.monotonic() - began < 1 + EXIT_WITHIN + SLACK


def test_two_workers_each_with_a_pool(hosts: Hosts) -> None:
    """Process: one of them is killed, and nothing of it stays; uvicorn's next one serves."""
    host = serve(hosts, "--workers", "2")
    seen: dict[int, dict[str, Any]] = {}
    eventually(lambda: seen.update({(f := facts(host))["pid"]: f}) or len(seen) == 2, within=30.0, what=host.log())
    first, second = ({f["pid"], f["forkserver"], *f["workers"]} for f in seen.values())
    assert not first & second
    os.kill(next(iter(seen)), signal.SIGKILL)
    gone(first)
    assert all(map(is_alive, second))
    eventually(lambda: facts(host)["pid"] not in seen, within=30.0, what="the next one serves")
    host.signal(signal.SIGTERM)
    host.finish(code=None)
