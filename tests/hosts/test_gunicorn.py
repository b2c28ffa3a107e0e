"""Process: under gunicorn, in each way that it starts and ends its workers."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from dspex.testing import FakeLM

from ..pools.waiting import eventually, is_alive
from .conftest import Hosts
from .host import EXIT_WITHIN, ROOT, SLACK, Host, gone

pytest.importorskip("gunicorn")


def serve(hosts: Hosts, *options: str, kind: str = "lazy", workers: int = 1, **env: str) -> Host:
    command = [sys.executable, "-m", "gunicorn", "--bind", "fd://{fd}", "--pythonpath", str(ROOT)]
    command += ["--workers", str(workers), "--no-control-socket", *options, "tests.hosts.web:app"]
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
    return {facts["pid"], facts["template"], *facts["workers"]}


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
        assert one["template"]
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


def test_a_killed_worker_leaves_no_orphans(hosts: Hosts) -> None:
    """Process (T4): SIGKILL of a gunicorn worker with a call in flight; the master's next worker serves."""
    host = serve(hosts)
    before = facts(host)
    with host.ask("/?command=spin_c&seconds=600"):
        eventually(lambda: any(is_spinning(pid) for pid in before["workers"]), what="the call runs")
        os.kill(before["pid"], signal.SIGKILL)
        gone(processes(before))
    after = facts(host)
    assert not processes(before) & processes(after)
    host.signal(signal.SIGTERM)
    host.finish()


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_a_quick_shutdown_does_not_wait_for_calls(hosts: Hosts, worker_class: str) -> None:
    """Process (scorecard 36): SIGQUIT with calls in flight; gunicorn's worker ends at once, and everything with it."""
    host = serve(hosts, "--worker-class", worker_class, "--threads", "2", "--graceful-timeout", "60")
    before = facts(host)
    with host.ask("/?command=sleep&seconds=600"):
        eventually(lambda: any(is_in_call(pid) for pid in before["workers"]), what="the call runs")
        host.signal(signal.SIGQUIT)
        assert host.finish(within=30.0) < EXIT_WITHIN + SLACK


def test_a_worker_that_times_out_is_replaced(hosts: Hosts) -> None:
    """Process: gunicorn aborts a worker whose call takes longer than its timeout; nothing is left of its pool."""
    host = serve(hosts, "--timeout", "1")
    before = facts(host)
    with host.ask("/?command=sleep&seconds=600"):
        gone(processes(before))
    assert not processes(before) & processes(facts(host))
    host.signal(signal.SIGTERM)
    host.finish()


def test_a_graceful_reload_replaces_the_pools_too(hosts: Hosts) -> None:
    """Process: SIGHUP; a request that is being served gets its answer from the old worker, then that is gone."""
    host = serve(hosts)
    before = facts(host)
    with host.ask("/?command=sleep&seconds=1") as asked:
        eventually(lambda: any(is_in_call(pid) for pid in before["workers"]), what="the call runs")
        host.signal(signal.SIGHUP)
        answer = b""
        while part := asked.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200") and b'"value": 1' in answer, answer
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


def is_in_call(worker: int) -> bool:
    """Whether a thread of the worker waits in the kernel as `time.sleep` does."""
    return is_alive(worker) and any("nanosleep" in wchan for wchan in _wchans(worker))


def is_spinning(worker: int) -> bool:
    return is_in_call(worker)


def _wchans(pid: int) -> list[str]:
    return [(task / "wchan").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
