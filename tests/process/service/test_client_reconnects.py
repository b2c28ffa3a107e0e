"""Process: a client whose service is killed and started again goes on without a new `connect()`."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.control import Client, Service
from tests.support.client_service import ServiceOfPrograms, served
from tests.support.waiting import eventually


@pytest.fixture
def service() -> Iterator[ServiceOfPrograms]:
    with served(size=1, concurrency=4, pools=("faults", "dspy")) as running:
        yield running


def test_a_client_goes_on_after_its_service_was_killed(service: ServiceOfPrograms) -> None:
    """process: what ran ends typed, once; idempotent and new calls wait; sessions, events and programs go on."""
    seen: list[str] = []
    reconnected = threading.Event()
    outcomes: dict[str, list[Any]] = {"plain": [], "idempotent": [], "new": []}
    with Client(service.socket, client="web") as client:
        client.on_event(lambda event: seen.append(event["name"]))
        client.on_reconnect(reconnected.set)
        durable, plain = client.session("faults", durable=True), client.session("faults")
        for session in (durable, plain):
            session.call("remember", {"key": "k", "value": [1, {"two": 2}]})
        unused = client.session("faults")
        calling = [
            _call(client, outcomes["plain"], {"seconds": 60}),
            _call(client, outcomes["idempotent"], {"seconds": 1}, idempotent=True),
        ]
        eventually(lambda: client.stats()["faults"]["in_flight"] == 2, what="both run")
        service.kill()
        eventually(lambda: not client.is_open, what="the client notices")
        calling.append(_call(client, outcomes["new"], {"seconds": 0}))
        with pytest.raises(dspex.NotRunning):
            client.status()  # of the service itself: asked now
        with pytest.raises(dspex.NotRunning, match="did not come back within"):
            client.call("faults", "ping", timeout=0.05)
        service.start()
        for thread in calling:
            thread.join(60)
        [lost] = outcomes["plain"]
        assert isinstance(lost, dspex.ConnectionLost) and lost.retryable == "if_idempotent"
        assert (outcomes["idempotent"], outcomes["new"]) == ([1], [0])
        assert reconnected.wait(30) and client.is_open
        assert durable.call("recall", {"key": "k"})["value"] == [1, {"two": 2}]
        with pytest.raises(dspex.SessionLost, match="connection to its service ended"):
            plain.call("recall", {"key": "k"})
        assert unused.call("remember", {"key": "k", "value": 1})  # it had nothing to lose
        with client.session("faults", plain.id, fresh=True) as again:
            assert again.call("append", {"value": 1}) == [1]
        assert asyncio.run(client.acall("faults", "ping"))
        program = dspex.predictor("predict", "question -> answer", supervisor=client)
        for where in ("native", "python"):
            assert program.using(implementation=where)(question=f"<{where}>").answer == where
        eventually(lambda: "dspex.client.reconnected" in seen, what="its subscriber is told")
        client.pool("faults").resize(2)
        eventually(lambda: "dspex.pool.resized" in seen, what="events go on")


def test_programs_wait_for_their_service(service: ServiceOfPrograms) -> None:
    """process: natively, in workers and streamed, those made of requests alone; agents, with tools, are told."""
    with Client(service.socket) as client:
        program = dspex.predictor("predict", "question -> answer", supervisor=client)
        assert program(question="<warm>").answer == "warm"
        service.lm._server.latency = 2.0
        made: list[Any] = []
        threads = [_ask(program.using(implementation=where), made, where) for where in ("native", "python")]
        eventually(lambda: len(service.lm.requests) == 3, within=30.0, what="both have asked")
        service.kill()
        service.lm._server.latency = 0.0
        service.start()
        for thread in threads:
            thread.join(60)
        assert sorted(made) == ["native", "python"]


def test_a_service_that_stops_says_who_may_try_again(service: ServiceOfPrograms) -> None:
    """process: what it never sent to a worker may be tried again, what it ended may have run."""
    with Client(service.socket) as client:
        running, queued = [], []
        calls = [_call(client, running, {"seconds": 60}) for _ in range(4)]
        eventually(lambda: client.stats()["faults"]["in_flight"] == 4, what="the pool is full")
        calls.append(_call(client, queued, {"seconds": 60}))
        eventually(lambda: client.stats()["faults"]["queued"] == 1, what="one waits")
        client.stop(grace=0)
        for thread in calls:
            thread.join(60)
        assert {error.retryable for error in queued} == {"now"}
        assert {error.retryable for error in running} == {"if_idempotent"} and len(running) == 4


def test_a_client_can_be_closed_while_it_reconnects(service: ServiceOfPrograms) -> None:
    """process: who waits is told at once; nothing of it is left."""
    client = Client(service.socket)
    service.kill()
    eventually(lambda: not client.is_open, what="the client notices")
    waiting: list[Any] = []
    thread = _call(client, waiting, {"seconds": 0})
    client.close()
    thread.join(10)
    assert isinstance(waiting[0], dspex.NotRunning)
    eventually(lambda: not any(one.name == "dspex-client" for one in threading.enumerate()), what="its thread ends")
    with pytest.raises(dspex.NotRunning):
        client.call("faults", "ping")


def test_a_fork_of_a_client_is_refused(service: ServiceOfPrograms) -> None:
    """process: at once and by name, calls and programs; the parent's goes on, connected or not."""
    with Client(service.socket) as client:
        program = dspex.predictor("predict", "question -> answer", supervisor=client, implementation="python")
        for is_connected in (True, False):
            if not is_connected:
                service.kill()
                eventually(lambda: not client.is_open, what="the client notices")
            assert _in_child(lambda: client.call("faults", "ping", timeout=5)) == "ForkedSupervisor"
            assert _in_child(lambda: program(question="q")) == "ForkedSupervisor"
        service.start()
        assert client.call("faults", "ping")


def test_an_embedded_service_is_found_again(service: ServiceOfPrograms) -> None:
    """process: one that closes is waited for, too, and found again at its socket."""
    pool = dspex.PoolConfig("faults", bridge="faults", size=1)
    path = service.folder / "embedded.sock"
    with dspex.Supervisor(pools=[pool]) as sup:
        sup.wait_ready()
        with Service(sup, path):
            client = Client(path)
            assert client.call("faults", "ping")
        eventually(lambda: not client.is_open, what="the client notices")
        answered: list[Any] = []
        thread = _call(client, answered, {"seconds": 0})
        with Service(sup, path):
            thread.join(30)
            client.close()
    assert answered == [0]


def _call(client: Client, outcomes: list[Any], arguments: dict[str, Any], **options: Any) -> threading.Thread:
    def call() -> None:
        try:
            outcomes.append(client.call("faults", "sleep", arguments, **options))
        except dspex.DspexError as error:
            outcomes.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread


def _ask(program: Any, made: list[Any], where: str) -> threading.Thread:
    def ask() -> None:
        try:
            made.append(program(question=f"<{where}>").answer)
        except dspex.DspexError as error:
            made.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def _in_child(call: Any) -> str:
    """Return the class of what a call raises in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            call()
            os.write(write, b"nothing")
        except BaseException as error:
            os.write(write, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said
