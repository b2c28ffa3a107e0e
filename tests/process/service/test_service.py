"""Collaboration: a client makes a supervisor's calls through the control socket."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dspex
from dspex import Supervisor, errors
from dspex.control import Client, Service, peer_credentials
from tests.support.waiting import eventually


def running(supervisor: Supervisor) -> int:
    return supervisor.stats()["faults"]["in_flight"]


def test_call_gives_the_result(client: Client) -> None:
    """collaboration"""
    assert client.call("faults", "echo", {"a": [1, {"b": b"bytes"}]}) == {"a": [1, {"b": b"bytes"}]}


def test_connect_finds_the_default_supervisor(service: Service) -> None:
    """collaboration"""
    with dspex.connect() as client:
        assert client.greeting["pid"] == os.getpid()
        assert client.pools == ("faults",)


def test_errors_are_the_classes_that_a_supervisor_raises(client: Client) -> None:
    """collaboration"""
    with pytest.raises(errors.RemoteError) as remote:
        client.call("faults", "raise_error", {"type": "KeyError", "message": "gone"})
    assert (remote.value.type, "Traceback" in remote.value.traceback) == ("KeyError", True)
    with pytest.raises(errors.UnknownName) as unknown:
        client.call("faults", "ehco")
    assert unknown.value.near == ("echo",)
    with pytest.raises(errors.UnknownName):
        client.call("nowhere", "echo")
    with pytest.raises(errors.CallTimeout) as late:
        client.call("faults", "sleep", {"seconds": 5.0}, timeout=0.1)
    assert late.value.timeout == 0.1
    with pytest.raises(errors.WorkerDied) as died:
        client.call("faults", "exit", {"code": 3})
    assert died.value.exit_code == 3


def test_value_that_cannot_cross_is_refused_before_it_is_sent(client: Client) -> None:
    """collaboration"""
    with pytest.raises(errors.EncodeError) as refused:
        client.call("faults", "echo", {"x": {"y": (1,)}})
    assert refused.value.path == "arguments['x']['y']"
    with pytest.raises(errors.FrameTooLarge) as large:
        client.call("faults", "echo", {"x": b"x" * 17_000_000})
    assert large.value.side == "parent"
    assert client.call("faults", "echo", {"x": 1}) == {"x": 1}


def test_many_threads_share_one_connection(client: Client) -> None:
    """collaboration"""

    def ask(i: int) -> int:
        return int(client.call("faults", "echo", {"i": i, "pad": b"p" * (i % 7 * 20_000)})["i"])

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(200))) == list(range(200))


def test_awaited_calls_and_streams(client: Client) -> None:
    """collaboration"""

    async def main() -> None:
        answers = await asyncio.gather(*(client.acall("faults", "echo", {"i": i}) for i in range(50)))
        assert [answer["i"] for answer in answers] == list(range(50))
        async with client.astream("faults", "count", {"n": 100}) as stream:
            assert [chunk async for chunk in stream] == list(range(100))
        assert stream.value == 100

    asyncio.run(main())


def test_stream_gives_chunks_then_its_value(client: Client) -> None:
    """collaboration"""
    with client.stream("faults", "count", {"n": 200}) as stream:
        assert list(stream) == list(range(200))
    assert stream.value == 200


def test_stream_that_is_left_early_frees_its_worker(client: Client, supervisor: Supervisor) -> None:
    """collaboration"""
    with client.stream("faults", "count", {"n": 100_000, "delay_s": 0.001}) as stream:
        assert next(stream) == 0
        assert running(supervisor) == 1
    eventually(lambda: running(supervisor) == 0, what="the worker is free again")


def test_slow_reader_of_a_stream_holds_up_nobody(client: Client, service: Service) -> None:
    """collaboration: 100 unread chunks of 100 kB stop their own stream by credit, and no other call"""
    with Client(service.path) as slow:
        streams = [slow.stream("faults", "count", {"n": 100_000}) for _ in range(2)]
        for i in range(50):
            assert client.call("faults", "echo", {"i": i}) == {"i": i}
        for stream in streams:
            stream.close()


def test_cancelled_task_cancels_the_call_in_its_worker(client: Client, supervisor: Supervisor) -> None:
    """collaboration"""

    async def main() -> None:
        task = asyncio.create_task(client.acall("faults", "spin", {"seconds": 30.0}))
        await asyncio.to_thread(eventually, lambda: running(supervisor) == 1, what="the call runs")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    eventually(lambda: running(supervisor) == 0, what="the worker has stopped it")


def test_client_that_goes_away_cancels_its_calls(service: Service, supervisor: Supervisor) -> None:
    """collaboration"""
    going = Client(service.path)
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            going.call("faults", "spin", {"seconds": 30.0})
        except errors.ConnectionLost as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: running(supervisor) == 3, what="the calls run")
    going.close()
    for thread in threads:
        thread.join()
    assert len(failures) == 3
    eventually(lambda: running(supervisor) == 0, what="the workers have stopped them")
    eventually(lambda: service.clients == 0, what="the service has forgotten the client")


def test_sessions_of_two_clients_never_meet(client: Client, service: Service) -> None:
    """collaboration: S1"""
    with (
        Client(service.path) as other,
        client.session("faults", "same") as mine,
        other.session("faults", "same") as its,
    ):
        mine.call("remember", {"key": "k", "value": "mine"})
        its.call("remember", {"key": "k", "value": "its"})
        assert mine.call("recall", {"key": "k"})["value"] == "mine"
        assert its.call("recall", {"key": "k"})["value"] == "its"


def test_shared_session_is_one_for_all_clients_and_outlives_them(client: Client, service: Service) -> None:
    """collaboration: S1"""
    with Client(service.path) as other:
        other.call("faults", "remember", {"key": "k", "value": 1}, session="ours", shared=True)
    assert client.call("faults", "recall", {"key": "k"}, session="ours", shared=True)["value"] == 1
    client.session("faults", "ours", shared=True).close()


def test_sessions_end_with_their_client(service: Service, supervisor: Supervisor) -> None:
    """collaboration"""
    before = supervisor.stats()["faults"]["sessions"]
    with Client(service.path) as going:
        going.session("faults").call("remember", {"key": "k", "value": 1})
        going.call("faults", "remember", {"key": "k", "value": 1}, session="implicit")
        assert supervisor.stats()["faults"]["sessions"] == before + 2
    eventually(lambda: supervisor.stats()["faults"]["sessions"] == before, what="its sessions are dropped")


def test_status_and_health_are_those_of_the_supervisor(client: Client, supervisor: Supervisor) -> None:
    """collaboration"""
    status = client.status()
    assert status["supervisor"]["pid"] == os.getpid()
    assert "token" not in status["supervisor"]
    assert status["pools"].keys() == supervisor.stats().keys()
    assert status["pools"]["faults"].keys() == supervisor.stats()["faults"].keys()
    assert client.health() == supervisor.health()


def test_pool_is_resized_and_recycled(client: Client, supervisor: Supervisor) -> None:
    """collaboration"""
    pool = client.pool("faults")
    pool.resize(3)
    eventually(lambda: len(pool.stats()["workers"]) == 3, what="three workers")
    pool.resize(2)
    eventually(lambda: len(pool.stats()["workers"]) == 2, what="two workers")
    before = {row["generation"] for row in pool.stats()["workers"]}
    pool.recycle(timeout=20.0)
    assert not before & {row["generation"] for row in pool.stats()["workers"]}


def test_recycle_that_takes_longer_says_so_and_goes_on(client: Client, supervisor: Supervisor) -> None:
    """collaboration"""
    with client.session("faults") as session:
        session.call("remember", {"key": "k", "value": 1})
        with pytest.raises(TimeoutError, match="it goes on"):
            client.pool("faults").recycle(timeout=0.05)
        before = {row["generation"] for row in supervisor.stats()["faults"]["workers"]}

    def is_calm() -> bool:
        return all(row["phase"] == "ready" for row in supervisor.stats()["faults"]["workers"])

    eventually(is_calm, what=f"calm after {before}")


def test_events_are_followed(client: Client) -> None:
    """collaboration"""
    seen: list[str] = []
    met = threading.Event()

    def subscriber(event: dict[str, object]) -> None:
        seen.append(str(event["name"]))
        if event["name"] == "dspex.pool.resized":
            met.set()

    end = client.on_event(subscriber)
    client.pool("faults").resize(2)
    assert met.wait(10.0)
    end()
    assert "dspex.pool.resized" in [event["name"] for event in client.events()]


def test_configuration_cannot_be_changed_through_the_socket(client: Client) -> None:
    """collaboration: X7: there is no verb that makes a pool, and a verb that does not exist is refused"""
    with pytest.raises(errors.UnknownName, match="verb"):
        client.ask("pool.add", {"name": "evil", "bridge": "faults"}, what="a try")
    with pytest.raises(errors.UnknownName, match="verb"):
        client.ask("__class__", {}, what="a try")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("call", {}),
        ("call", {"pool": 1, "command": "echo"}),
        ("call", {"pool": "faults", "command": "echo", "arguments": [1]}),
        ("call", {"pool": "faults", "command": "echo", "timeout": "soon"}),
        ("call", {"pool": "faults", "command": "echo", "timeout": -1}),
        ("resize", {"pool": "faults", "size": "3"}),
        ("resize", {"pool": "faults", "size": True}),
        ("session.open", {"pool": "faults", "id": 3}),
    ],
)
def test_ill_typed_arguments_are_invalid_input(client: Client, verb: str, arguments: dict[str, object]) -> None:
    """collaboration"""
    with pytest.raises(errors.InvalidInput):
        client.ask(verb, arguments, what="a try")


def test_another_user_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: the kernel's word on who connects is the seam"""
    monkeypatch.setattr(peer_credentials, "credentials", lambda sock: (1, os.getuid() + (sock.getsockname() != "")))
    with pytest.raises(errors.ProtocolError, match="takes no calls of uid"):
        Client(service.path)


def test_one_client_too_many_is_told_so(supervisor: Supervisor, folder: Path) -> None:
    """collaboration"""
    with Service(supervisor, name="small", max_clients=1) as service, Client(service.path) as first:
        with pytest.raises(errors.TooManyClients, match="--max-clients") as refused:
            Client(service.path)
        assert (refused.value.clients, refused.value.limit) == (1, 1)
        assert first.call("faults", "echo", {"x": 1}) == {"x": 1}


def test_second_service_of_one_name_is_refused(service: Service, supervisor: Supervisor) -> None:
    """collaboration"""
    with pytest.raises(errors.SettingsError, match="runs already"):
        Service(supervisor).start()


def test_service_in_a_folder_that_others_can_enter_is_refused(supervisor: Supervisor, tmp_path: Path) -> None:
    """collaboration"""
    tmp_path.chmod(0o755)
    with pytest.raises(errors.SettingsError, match="open to others"):
        Service(supervisor, tmp_path / "x.sock")


def test_nobody_there_says_where_and_what_to_do(folder: Path) -> None:
    """collaboration"""
    with pytest.raises(errors.NotRunning, match="dspex start --name gone") as error:
        dspex.connect(name="gone")
    assert isinstance(error.value, ConnectionError)
    assert error.value.path == str(folder / "gone.sock")


def test_nobody_there_names_those_that_run(service: Service) -> None:
    """collaboration"""
    with pytest.raises(errors.NotRunning, match="default runs"):
        dspex.connect(name="gone")


def test_service_that_closes_ends_its_clients(supervisor: Supervisor, folder: Path) -> None:
    """collaboration"""
    with Service(supervisor, name="brief") as service:
        client = Client(service.path, reconnects=False)
        events = client.events(follow=True, recent=0)
    eventually(lambda: not client.is_open, what="the client notices")
    with pytest.raises(errors.NotRunning, match="Connect again"):
        client.call("faults", "echo")
    assert list(events) == []
    client.close()
    assert {path.suffix for path in folder.iterdir()} == {".lock"}


def test_embedded_service_that_is_told_to_stop_ends_its_supervisor(folder: Path) -> None:
    """collaboration"""
    pool = dspex.PoolConfig("faults", bridge="faults", size=1)
    with Supervisor(pools=[pool]) as own, Service(own, name="embedded") as service:
        own.wait_ready()
        with Client(service.path) as client:
            assert client.stop(grace=0.0)["kind"] == "embedded"
        eventually(lambda: not own.is_running, what="the supervisor has stopped")
        eventually(lambda: not service.path.exists(), what="the socket is gone")


def test_forked_child_cannot_use_the_parents_client(client: Client) -> None:
    """process"""
    pid = os.fork()
    if pid == 0:
        try:
            client.call("faults", "echo")
        except errors.ForkedSupervisor:
            os._exit(7)
        except BaseException:
            os._exit(8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert client.call("faults", "echo", {"x": 1}) == {"x": 1}


def test_forked_child_of_the_host_holds_none_of_the_services_sockets(service: Service, client: Client) -> None:
    """process: else a client would not see the end of the host while such a child lives"""
    sockets = [*service._listener.descriptors, *(one.descriptor for one in service._resources.places.everybody)]
    pid = os.fork()
    if pid == 0:
        held = [str(Path(f"/proc/self/fd/{descriptor}").readlink()) for descriptor in sockets]
        os._exit(7 if set(held) == {"/dev/null"} and len(held) == len(sockets) else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert client.call("faults", "echo", {"x": 1}) == {"x": 1}


def test_lost_session_is_the_same_error_and_begins_afresh(client: Client) -> None:
    """collaboration: S6"""
    session = client.session("faults", "frail")
    session.call("remember", {"key": "k", "value": 1})
    with pytest.raises(errors.WorkerDied):
        session.call("kill", {"signal": 9})
    with pytest.raises(errors.SessionLost) as lost:
        session.call("recall", {"key": "k"})
    assert lost.value.reason == "died"
    with client.session("faults", "frail", fresh=True) as afresh:
        afresh.call("remember", {"key": "k", "value": 2})
        assert afresh.call("recall", {"key": "k"})["value"] == 2


def test_durable_session_survives_its_worker(client: Client) -> None:
    """collaboration: S9"""
    with client.session("faults", durable=True) as session:
        session.call("remember", {"key": "k", "value": [1, {"a": None}]})
        with pytest.raises(errors.WorkerDied):
            session.call("kill", {"signal": 9})
        assert session.call("recall", {"key": "k"})["value"] == [1, {"a": None}]


def test_no_thread_descriptor_or_child_is_left(folder: Path, no_leaks: None) -> None:
    """collaboration"""
    with Supervisor(pools=[dspex.PoolConfig("faults", bridge="faults", size=1)]) as own, Service(own) as service:
        own.wait_ready()
        for _ in range(5):
            with Client(service.path) as client:
                client.call("faults", "echo")


def test_an_empty_variable_names_no_socket(service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: as a shell or a unit file unsets one"""
    monkeypatch.setenv("DSPEX_SOCKET", "")
    with dspex.connect() as client:
        assert client.greeting["pid"] == os.getpid()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_deadline_that_was_made_longer_holds_for_clients_that_were_there(client: Client, is_async: bool) -> None:
    """collaboration: what it was told at the hello is a guess by now; the supervisor's own deadline decides"""
    client._timeouts["faults"] = -1.8  # with the margin: 0.2 s
    slow = {"seconds": 0.6}
    if is_async:
        assert asyncio.run(client.acall("faults", "sleep", slow)) == 0.6
    else:
        assert client.call("faults", "sleep", slow) == 0.6
