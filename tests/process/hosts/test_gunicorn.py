"""Process: under gunicorn, in each way that it starts and ends its workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from dspex.testing import FakeLM
from tests.process.hosts.conftest import Hosts
from tests.support.hosts.host import EXIT_WITHIN, SLACK, Host, gone
from tests.support.paths import ROOT
from tests.support.waiting import eventually

pytest.importorskip("gunicorn")


def serve(hosts: Hosts, *options: str, kind: str = "lazy", workers: int = 1, **env: str) -> Host:
    command = [sys.executable, "-m", "gunicorn", "--bind", "fd://{fd}", "--pythonpath", str(ROOT)]
    command += ["--workers", str(workers), "--no-control-socket", *options, "tests.support.hosts.web:app"]
    host = hosts(command, listen=True, env={"HOST_SUPERVISOR": kind, **env})
    host.heard("imported")
    return host


def facts(host: Host) -> dict[str, Any]:
    """What a gunicorn worker says of itself once its pool is complete."""

    def found() -> dict[str, Any] | None:
        answer = host.try_get("/facts")
        return answer if answer and len(answer.get("workers", ())) == 2 and all(answer["workers"]) else None

    given: dict[str, Any] = eventually(found, within=30.0, what=f"a complete pool\n{host.log()}")
    return given


def processes(facts: dict[str, Any]) -> set[int]:
    return {facts["pid"], facts["forkserver"], *facts["workers"]}


@pytest.mark.parametrize(
    ("options", "kind", "number"),
    [
        (("--worker-class", "sync"), "lazy", signal.SIGTERM),
        (("--worker-class", "sync", "--preload"), "imported", signal.SIGINT),
        (("--worker-class", "gthread", "--threads", "4"), "lazy", signal.SIGINT),
        (("--worker-class", "gthread", "--threads", "4", "--preload"), "imported", signal.SIGTERM),
    ],
    ids=["sync", "sync preloaded", "gthread", "gthread preloaded"],
)
def test_every_worker_serves_with_a_pool_of_its_own(
    hosts: Hosts, options: tuple[str, ...], kind: str, number: int
) -> None:
    """Process (C13): answers from both workers, no signal handler changed, a clean end by SIGTERM and SIGINT."""
    host = serve(hosts, *options, kind=kind, workers=2)
    seen: dict[int, dict[str, Any]] = {}
    eventually(lambda: seen.update({(f := facts(host))["pid"]: f}) or len(seen) == 2, within=30.0, what=host.log())
    for one in seen.values():
        assert one["changed_handlers"] == []
        assert one["forkserver"]
    first, second = seen.values()
    assert not processes(first) & processes(second)
    answers = [host.get("/", command="echo", n=n) for n in range(20)]
    assert [answer["value"] for answer in answers] == [{"n": n} for n in range(20)]
    if kind == "imported":
        (in_master,) = host.heard("imported")
        assert in_master
        assert not {*in_master} & {*first["workers"], *second["workers"]}
        assert host.get("/explicit")["error"] == "ForkedSupervisor"
    host.signal(number)
    host.finish()


def test_a_killed_worker_leaves_no_orphans(hosts: Hosts, tmp_path: Path) -> None:
    """Process (T4): SIGKILL of a gunicorn worker with a call in flight; the master's next worker serves."""
    host = serve(hosts)
    before = facts(host)
    with in_a_call(host, tmp_path):
        os.kill(before["pid"], signal.SIGKILL)
        gone(processes(before))
    after = facts(host)
    assert not processes(before) & processes(after)
    host.signal(signal.SIGTERM)
    host.finish()


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_a_quick_shutdown_does_not_wait_for_calls(hosts: Hosts, worker_class: str, tmp_path: Path) -> None:
    """Process (scorecard 36): SIGQUIT with calls in flight; gunicorn's worker ends at once, and everything with it."""
    host = serve(hosts, "--worker-class", worker_class, "--threads", "2", "--graceful-timeout", "60")
    facts(host)
    with in_a_call(host, tmp_path):
        host.signal(signal.SIGQUIT)
        assert host.finish(within=30.0) < EXIT_WITHIN + SLACK


def test_a_worker_that_times_out_is_replaced(hosts: Hosts, tmp_path: Path) -> None:
    """Process: gunicorn aborts a worker whose call takes longer than its timeout; nothing is left of its pool."""
    host = serve(hosts, "--timeout", "2")
    before = facts(host)
    with in_a_call(host, tmp_path):
        gone(processes(before))
    assert not processes(before) & processes(facts(host))
    host.signal(signal.SIGTERM)
    host.finish()


def test_a_graceful_reload_replaces_the_pools_too(hosts: Hosts, tmp_path: Path) -> None:
    """Process: SIGHUP; a request that is being served gets its answer from the old worker, then that is gone."""
    host = serve(hosts)
    before = facts(host)
    with in_a_call(host, tmp_path) as asked:
        host.signal(signal.SIGHUP)
        eventually(lambda: "Handling signal: hup" in host.log(), what="the master has heard")
        (tmp_path / "gate").touch()
        answer = b""
        while part := asked.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert any(b'"value": %d' % pid in answer for pid in before["workers"]), answer
    gone(processes(before))
    assert not processes(before) & processes(facts(host))
    host.signal(signal.SIGTERM)
    host.finish()


def test_dspy_itself_behind_a_preloaded_application(hosts: Hosts) -> None:
    """Process: the default supervisor was used in the master; its worker predicts with DSPy in a pool of its own."""
    with FakeLM({"": {"answer": "Paris"}}, cycle=True) as lm:
        endpoint = f'{{"api_base": "{lm.api_base}", "api_key": "{lm.api_key}"}}'
        host = serve(hosts, "--preload", kind="imported", HOST_BRIDGE="dspy", HOST_ENDPOINT=endpoint)
        answers = [
            host.get("/predict", question="Capital of France?", implementation=where) for where in ("python", "native")
        ]
        assert [answer["answer"] for answer in answers] == ["Paris", "Paris"]
        assert [answer["route"][:12] for answer in answers] == ["python:dspy/", "native"]
        assert answers[0]["pid"] == answers[1]["pid"] != host.process.pid
        host.signal(signal.SIGTERM)
        host.finish()


@contextlib.contextmanager
def in_a_call(host: Host, folder: Path) -> Iterator[socket.socket]:
    """A request whose call runs, until the file `gate` exists; gives its connection."""
    announced = folder / "announced"
    query = urlencode({"command": "announced", "path": announced, "gate": folder / "gate"})
    with host.ask(f"/?{query}") as asked:
        eventually(announced.exists, within=30.0, what="the call runs")
        yield asked
