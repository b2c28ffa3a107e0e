"""Process: /metrics of a real service, read by Prometheus's own parser, says what has happened; probes say the rest."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import dspex
from dspex.control import Service
from dspex.errors import CallTimeout, RemoteError, SettingsError, WorkerDied
from dspex.events import Name
from dspex.testing import FakeLM, FakeReply
from tests.support.waiting import eventually

CAP = 512 * 2**20


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [
        dspex.PoolConfig("faults", bridge="faults", size=2, concurrency=1, memory_cap="512MiB", stop_grace=1.0),
        dspex.PoolConfig("dspy", size=1),
    ]
    with dspex.Supervisor(pools=pools) as running:
        yield running.wait_ready()


@pytest.fixture
def url(sup: dspex.Supervisor, folder: Path) -> Iterator[str]:
    with Service(sup, http=0) as service:
        assert service.http is not None
        yield service.http.url


def test_every_family_says_what_has_happened(sup: dspex.Supervisor, url: str) -> None:
    before = read(url)
    for _ in range(5):
        sup.call("faults", "sleep", {"seconds": 0.0})
    with pytest.raises(RemoteError):
        sup.call("faults", "raise_error")
    with pytest.raises(CallTimeout):
        sup.call("faults", "sleep", {"seconds": 30.0}, timeout=0.3)
    with pytest.raises(WorkerDied):
        sup.call("faults", "kill")
    sup.session("faults", "kept")
    with sup.session("faults", "again") as session:
        session.call("sleep", {"seconds": 0.0})
    answers = [FakeReply(status=500), {"answer": "Paris"}, {"answer": "Rome"}]
    with FakeLM(answers, cache=True, retries=2, price=(1.0, 1.0)) as lm:
        ask = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
        first = ask(question="What is the capital of France?")
        assert ask(question="What is the capital of France?").cached
        in_worker = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation="python")
        worked = in_worker(question="What is the capital of Italy?")
    tokens = [sum(used["prompt_tokens"] for used in out.usage.values()) for out in (first, worked)]
    eventually(lambda: sup.health()["faults"]["is_ready"], what="the worker is replaced")
    assert sup.flush_events(5.0)

    now = read(url)

    def grown(name: str, **labels: str) -> float:
        return now.get(key(name, labels), 0.0) - before.get(key(name, labels), 0.0)

    calls = {"pool": "faults", "command": "sleep"}
    assert grown("dspex_calls_total", **calls, outcome="ok") == 6
    assert grown("dspex_calls_total", **calls, outcome="CallTimeout") == 1
    assert grown("dspex_calls_total", pool="faults", command="raise_error", outcome="RemoteError") == 1
    assert grown("dspex_calls_total", pool="faults", command="kill", outcome="WorkerDied") == 1
    assert grown("dspex_call_duration_seconds_count", **calls) == 7
    assert grown("dspex_call_duration_seconds_bucket", **calls, le="+Inf") == 7
    assert grown("dspex_call_duration_seconds_bucket", **calls, le="0.25") <= 6  # the one that ran out of time
    assert grown("dspex_call_duration_seconds_sum", **calls) >= 0.3
    assert grown("dspex_call_queue_wait_seconds_count", pool="faults") == 9
    assert sum(value for (name, _), value in now.items() if name == "dspex_calls_total") == sum(
        value for (name, _), value in now.items() if name == "dspex_call_duration_seconds_count"
    )
    assert grown("dspex_worker_restarts_total", pool="faults", cause="killed") == 1
    assert grown("dspex_events_total", event="dspex.worker.died") == 1
    assert now[key("dspex_pool_size", {"pool": "faults"})] == 2
    assert now[key("dspex_pool_ready", {"pool": "faults"})] == 1
    assert now[key("dspex_workers", {"pool": "dspy", "phase": "ready"})] == 1
    assert now[key("dspex_worker_memory_cap_bytes", {"pool": "faults"})] == CAP
    assert 0 < now[key("dspex_worker_memory_bytes", {"pool": "faults", "worker": "faults/0"})] < CAP
    assert now[key("dspex_sessions", {"pool": "faults"})] == sup.stats()["faults"]["sessions"]
    assert now[key("dspex_queue_limit", {"pool": "faults"})] == sup.stats()["faults"]["queue_limit"]
    assert grown("dspex_lm_requests_total") == 2
    assert grown("dspex_lm_cache_hits_total") == 1
    assert grown("dspex_lm_retries_total", model="openai/fake") == 1
    assert grown("dspex_lm_tokens_total", model="openai/fake", kind="prompt") == sum(tokens)
    assert grown("dspex_lm_cost_usd_total") == pytest.approx(first.cost_usd + worked.cost_usd)
    assert now[key("dspex_jobs_running", {})] == 0
    sup.emit(Name.JOB_ENDED, reason="done")
    assert sup.flush_events(5.0)
    assert read(url)[key("dspex_jobs_ended_total", {"state": "done"})] == 1


def test_what_runs_and_waits_is_seen_and_the_probes_say_whether_it_can(sup: dspex.Supervisor, url: str) -> None:
    def nap() -> None:
        with contextlib.suppress(CallTimeout):
            sup.call("faults", "sleep", {"seconds": 60.0}, timeout=3.0)

    threads = [threading.Thread(target=nap) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: read(url)[key("dspex_calls_queued", {"pool": "faults"})] == 1, what="one waits")
    assert read(url)[key("dspex_calls_running", {"pool": "faults"})] == 2
    for thread in threads:
        thread.join()
    assert ask(f"{url}/livez") == (200, {"status": "alive"})
    eventually(lambda: ask(f"{url}/readyz") == (200, {"status": "ready"}), what="it can take calls again")


def test_names_from_callers_cannot_make_metrics_grow(sup: dspex.Supervisor) -> None:
    from dspex.pools.call_tally import COMMANDS_MOST, OTHER, CallTally

    class Ended:
        error = None
        made_at = sent_at = 1.0

        def __init__(self, command: str) -> None:
            self.command = command

    tally = CallTally()
    for number in range(COMMANDS_MOST * 3):
        tally.end(Ended(f"{number}\x1b[31m" + "x" * 10_000), "ok", 2.0)  # type: ignore[arg-type]
    assert len(tally.commands) == COMMANDS_MOST + 1 and max(map(len, tally.commands)) < 200
    assert tally.commands[OTHER].outcomes == {"ok": COMMANDS_MOST * 2}


def test_a_stopped_supervisor_is_not_ready_and_shows_no_pools(folder: Path) -> None:
    with dspex.Supervisor(pools=[dspex.PoolConfig("echo", bridge="faults", size=1)]) as own:
        own.wait_ready()
        with Service(own, folder / "own.sock", http=0) as service:
            assert service.http is not None
            assert ask(f"{service.http.url}/readyz")[0] == 200
            own.stop(0.0)
            status, told = ask(f"{service.http.url}/readyz")
            assert status == 503 and "stopped" in told["reasons"]["supervisor"]
            assert key("dspex_pool_size", {"pool": "echo"}) not in read(service.http.url)


def test_the_port_is_for_this_machine_only(sup: dspex.Supervisor, url: str, folder: Path) -> None:
    port = int(url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Host": "attacker.example"})
        assert connection.getresponse().status == 421
    assert ask(f"{url}/nothing")[0] == 404
    with pytest.raises(SettingsError, match=f"Port {port} of 127.0.0.1 cannot be had"):
        Service(sup, folder / "second.sock", http=port).start()
    assert not (folder / "second.sock").exists()  # nothing of what did not start is left
    with pytest.raises(SettingsError, match="65535"):
        Service(sup, folder / "third.sock", http=70_000)
    with socket.create_connection(("127.0.0.1", port)):  # one that says nothing holds up nobody
        assert ask(f"{url}/livez")[0] == 200


def test_it_is_an_application_for_asgi_and_wsgi_with_a_registry_of_ones_own(sup: dspex.Supervisor) -> None:
    from starlette.testclient import TestClient

    registry = CollectorRegistry()
    app = dspex.metrics_app(sup, registry=registry)
    dspex.register_metrics(sup, registry=registry)  # again: nothing comes twice
    with TestClient(app) as client:
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    names = [family.name for family in families]
    assert "dspex_calls" in names and len(names) == len(set(names))
    answered: list[str] = []
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": ""}
    body = b"".join(app.wsgi(environ, lambda status, headers: answered.append(status)))
    assert answered == ["200 OK"] and b"dspex_workers" in body


# ----------------------------------------------------------------------------------------------------------------------


Key = tuple[str, frozenset[tuple[str, str]]]


def key(name: str, labels: dict[str, str]) -> Key:
    return name, frozenset(labels.items())


def read(url: str) -> dict[Key, float]:
    """Every sample, each of which comes once."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {key(sample.name, sample.labels): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def ask(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        body = error.read()
        return error.code, json.loads(body) if body.startswith(b"{") else body
