"""Collaboration and process: the control service and its clients where descriptors, threads, memory or readers lack."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dspex
from dspex import Supervisor, errors
from dspex.control import Client, Service, backlog, held_requests, protocol, server_connection
from dspex.control.command_client import DirectClient
from dspex.control.listener import Listener
from dspex.control.protocol import Kind, Role
from tests.support.service import HELLO, everything, refusals
from tests.support.waiting import eventually


def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def silent(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10.0)
    sock.connect(str(path))
    return sock


@pytest.fixture
def crowd(service: Service) -> Iterator[Callable[[int], list[socket.socket]]]:
    """Connections that say nothing."""
    held: list[socket.socket] = []

    def come(number: int) -> list[socket.socket]:
        held.extend(silent(service.path) for _ in range(number))
        return held

    yield come
    for sock in held:
        sock.close()


# -- accepting --


class Refusing:
    """A listening socket whose accept always fails, though somebody waits."""

    def __init__(self, sock: socket.socket, error: BaseException) -> None:
        self._sock = sock
        self._error = error
        self.accepts = 0

    def accept(self) -> tuple[socket.socket, str]:
        self.accepts += 1
        raise self._error

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()


@pytest.mark.parametrize(
    "error",
    [*(OSError(number, os.strerror(number)) for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)),
     MemoryError()],
    ids=["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "MemoryError"],
)  # fmt: skip
def test_an_accept_that_fails_does_not_spin(folder: Path, error: BaseException) -> None:
    """unit: of a thousand turns of the loop few try again, and each failure is reported"""
    reports: list[BaseException] = []

    async def turns(listener: Listener) -> None:
        listener.open()
        for _ in range(1000):
            await asyncio.sleep(0)
        listener.end()

    with socket.socket(socket.AF_UNIX) as real, socket.socket(socket.AF_UNIX) as waiting:
        real.bind(str(folder / "x.sock"))
        real.listen()
        waiting.connect(str(folder / "x.sock"))
        refusing = Refusing(real, error)
        listener = Listener(refusing, serve=lambda *_: None, report=reports.append, make_room=lambda: False)  # type: ignore[arg-type]
        asyncio.run(turns(listener))
        listener.close()
    assert 1 <= len(reports) <= 20
    assert refusing.accepts <= 40


def test_a_client_without_a_descriptor_says_so_and_others_go_on(service: Service, client: Client) -> None:
    """process: this one's limit goes down to what it has"""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(0))
        for _ in range(3):
            with pytest.raises(errors.ResourceExhausted, match="ulimit -n") as lacking:
                Client(service.path)
            assert lacking.value.resource == "descriptors"
        assert client.call("faults", "echo", {"x": 1}) == {"x": 1}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in taken:
            os.close(descriptor)


# -- threads --


def test_a_client_without_a_thread_says_so_and_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration"""
    fds = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(errors.ResourceExhausted, match="threads") as lacking:
            Client(service.path)
    assert lacking.value.resource == "threads"
    eventually(lambda: service.clients == 0, what="the service sees it go")
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= fds, what="no descriptor is left")


def test_the_direct_client_needs_no_thread(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: all that an operator does, and a call and a stream"""
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with DirectClient(service.path) as operator:
            assert operator.health()["faults"]["is_ready"]
            assert operator.status()["supervisor"]["pid"] == os.getpid()
            assert list(operator.events(follow=False, recent=0)) == []
            assert operator.ask("forgive", {"pool": "faults", "digest": "none"}) is False
            with pytest.raises(errors.UnknownName):
                operator.ask("resize", {"pool": "nowhere", "size": 2})
        with DirectClient(service.path, role=Role.CLIENT) as caller:
            assert caller.call("faults", "echo", {"x": 1}, timeout=None) == {"x": 1}
            stream = caller.stream("faults", "count", {"n": 40}, timeout=10.0)
            assert len(list(stream)) == 40
            with pytest.raises(errors.RemoteError):
                caller.call("faults", "raise_error", {}, timeout=5.0)


def test_an_embedded_service_without_a_thread_still_stops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration"""
    pool = dspex.PoolConfig("faults", bridge="faults", size=1, stop_grace=0.1)
    with Supervisor(pools=[pool]) as own, Service(own, name="poor") as service:
        own.wait_ready()
        with DirectClient(service.path) as operator, monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            operator.stop(0.0)
            eventually(lambda: not own.is_running, what="the supervisor has stopped")
        eventually(lambda: not service.path.exists(), what="the socket is gone")


def test_a_supervisor_that_is_stuck_is_said_to_be(folder: Path) -> None:
    """collaboration: it says hello and nothing more"""
    path = folder / "stuck.sock"
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(path))
        stuck.listen()
        peers: list[socket.socket] = []

        def hello() -> None:
            sock, _ = stuck.accept()
            peers.append(sock)
            sock.sendall(protocol.send(Kind.HELLO, protocol.MAGIC, 1, 1, {"timeouts": {"p": 60.0}}))

        thread = threading.Thread(target=hello)
        thread.start()
        with DirectClient(path, role=Role.CLIENT) as client:
            with pytest.raises(errors.Unresponsive, match="'status'") as late:
                client.ask("status", wait=0.05)
            assert late.value.timeout == 0.05
            with pytest.raises(errors.CallTimeout) as call:
                client.call("p", "echo", {}, timeout=-1.95)
            assert call.value.timeout == -1.95  # what the caller asked for, without our own margin
        thread.join()
        peers[0].close()


# -- places --


def test_as_many_clients_as_there_are_places_lock_no_operator_out(supervisor: Supervisor, folder: Path) -> None:
    """collaboration: 64 clients, and operators beside them"""
    with Service(supervisor, name="full") as service:
        held = [silent(service.path) for _ in range(service.max_clients)]
        for sock in held:
            sock.sendall(HELLO)
            assert sock.recv(65536)
        with pytest.raises(errors.TooManyClients) as refused:
            dspex.connect(name="full")
        assert (refused.value.clients, refused.value.limit) == (64, 64)
        with DirectClient(service.path) as operator:
            assert operator.status()["supervisor"]["clients"] == 64
        with dspex.connect(name="full", operator=True) as probe:
            assert probe.health()["faults"]["is_ready"]
            with pytest.raises(errors.UsageError, match="connect as a client"):
                probe.call("faults", "echo")
            with pytest.raises(errors.UsageError, match="connect as a client"):
                list(probe.stream("faults", "count", {"n": 1}))
        held.pop().close()
        eventually(lambda: service.clients == 63, what="a place is free")
        with Client(service.path) as late:
            assert late.call("faults", "echo", {"x": 1}) == {"x": 1}
        for sock in held:
            sock.close()


def test_operators_that_hold_every_place_make_room_for_the_next(service: Service) -> None:
    """collaboration: followers of events, and idle ones"""
    followers = []
    for _ in range(20):
        followers.append(DirectClient(service.path))
        followers[-1]._send("events", {"follow": True, "recent": 0}, credit=16)
    with DirectClient(service.path) as operator:
        assert operator.health()
        assert operator.status()
    for one in followers:
        one.close()


def test_silent_connections_keep_nobody_out(
    service: Service, client: Client, crowd: Callable[[int], list[socket.socket]]
) -> None:
    """collaboration: many more than there are places, and none has to be waited for"""
    held = crowd(150)
    assert client.call("faults", "echo", {"x": 1}) == {"x": 1}
    with Client(service.path) as another, DirectClient(service.path) as operator:
        assert another.call("faults", "echo", {"x": 2}) == {"x": 2}
        assert operator.health()
    assert "said nothing" in refusals(everything(held[0]))[0]


# -- readers --


def test_clients_that_read_nothing_are_dropped_with_an_event(
    service: Service, supervisor: Supervisor, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: twenty of them; what waits for all together is bounded, and others are served"""
    monkeypatch.setattr(backlog, "MAX_TOTAL", 20_000_000)
    monkeypatch.setattr(backlog, "CROWDED_PATIENCE", 0.05)
    dropped: list[dict[str, object]] = []
    unsubscribe = supervisor.on_event(
        lambda event: dropped.append(dict(event.facts)) if event.name == "dspex.client.dropped" else None
    )
    asked = {"pool": "faults", "command": "payload", "arguments": {"bytes": 4_000_000}}
    peak = 0
    held = [silent(service.path) for _ in range(20)]
    for sock in held:
        sock.sendall(HELLO)
        assert sock.recv(65536)
        for id in range(1, 5):
            sock.sendall(protocol.send(Kind.CALL, id, "call", asked, {}))

    def is_relieved() -> bool:
        nonlocal peak
        peak = max(peak, service._resources.backlog.total)
        stats = supervisor.stats()["faults"]
        return stats["in_flight"] == stats["queued"] == 0 and service._resources.backlog.total <= backlog.MAX_TOTAL

    eventually(is_relieved, what="every call has ended, and what waits is little", within=60.0)
    assert client.call("faults", "payload", {"bytes": 4_000_000})
    supervisor.flush_events()
    unsubscribe()
    assert dropped and dropped[0]["reason"] == "unread"
    assert peak < 20 * 4 * 4_000_000  # all that was asked for
    eventually(lambda: service.clients <= 6, what="only as many are left as may hold what waits")
    for sock in held:
        sock.close()


def test_requests_that_wait_for_workers_are_bounded_in_bytes(
    service: Service, supervisor: Supervisor, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: of one client and of all; who asks for little is answered; and what ended counts no more"""
    monkeypatch.setattr(held_requests, "ONE_MOST", 3_000_000)
    monkeypatch.setattr(held_requests, "ALL_MOST", 4_000_000)
    monkeypatch.setattr(held_requests, "ONE_LEAST", 100_000)
    held = [silent(service.path) for _ in range(3)]
    for sock in held:
        sock.sendall(HELLO)
        assert sock.recv(65536)
        for number in range(3):
            asked = {"pool": "faults", "command": "sleep", "arguments": {"seconds": 60, "x": b"x" * 1_400_000}}
            sock.sendall(protocol.send(Kind.CALL, 2 * number + 1, "call", asked, {}))
    refused = [message for sock in held for message in refusals(sock.recv(65536))]
    assert refused and all("bytes for requests that wait" in message for message in refused)
    eventually(lambda: supervisor.stats()["faults"]["in_flight"] > 0, what="some run")
    assert service._resources.held._total <= 4_000_000
    assert client.call("faults", "ping")
    for sock in held:
        sock.close()
    eventually(lambda: service._resources.held._total == 0, what="what ended is let go")
    assert len(client.call("faults", "echo", {"x": b"y" * 2_500_000})["x"]) == 2_500_000


def test_requests_that_are_held_back_are_few_and_keep_no_other_out(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: forty that lack one byte each; what is held of them is bounded, and a large call gets its turn"""
    monkeypatch.setattr(server_connection, "CROWDED_PATIENCE", 0.1)
    asked = {"pool": "faults", "command": "echo", "arguments": {"x": b"x" * 4_000_000}}
    frame = protocol.send(Kind.CALL, 1, "call", asked, {})
    held = [silent(service.path) for _ in range(40)]
    for sock in held:
        sock.sendall(HELLO)
        assert sock.recv(65536)
        sock.setblocking(False)
    left = dict.fromkeys(held, len(frame) - 1)
    peak = 0

    def push() -> bool:
        nonlocal peak
        for sock, size in tuple(left.items()):
            with contextlib.suppress(BlockingIOError):
                try:
                    left[sock] -= sock.send(frame[-size - 1 : -1]) if size else 0
                except (BrokenPipeError, ConnectionResetError):
                    del left[sock]
        holding = [one._frames.pending for one in service._resources.places.everybody]
        peak = max(peak, sum(holding))
        return not left or service.clients == 1

    with ThreadPoolExecutor(1) as threads:
        eventually(
            lambda: push() or service._resources.large_requests.is_crowded, what="more are there than have a turn"
        )
        large = threads.submit(client.call, "faults", "echo", {"x": b"y" * 4_000_000})
        eventually(lambda: push() or large.done(), what="the large call has had its turn", within=60.0)
        assert len(large.result(timeout=60.0)["x"]) == 4_000_000
    assert peak < 32 * 1_400_000 + 9 * 4_000_000  # of 160 MB
    assert client.call("faults", "echo", {"x": 1}) == {"x": 1}
    for sock in held:
        sock.close()
