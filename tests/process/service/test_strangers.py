"""Collaboration: what is no client of ours does no harm to the service or to its clients."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dspex import errors
from dspex.control import Client, Service, protocol, server_connection
from tests.support.service import HELLO, everything, refusals
from tests.support.waiting import eventually


@pytest.fixture
def stranger(service: Service) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10.0)
        sock.connect(str(service.path))
        yield sock


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "length over the limit": struct.pack(">I", 0xFFFFFFFF) + b"x",
    "length of zero": struct.pack(">I", 0),
    "a frame that is no message": struct.pack(">I", 3) + b"abc",
    "a map bomb": struct.pack(">I", 5) + b"\xdf\xff\xff\xff\xff",
    "another protocol": protocol.send(protocol.Kind.HELLO, "dspex", 1, 0, {}),
    "another major version": protocol.send(protocol.Kind.HELLO, protocol.MAGIC, 99, 0, {}),
    "a call before the hello": protocol.send(protocol.Kind.CALL, 1, "status", {}, {}),
    "a big frame from a stranger": struct.pack(">I", 1_000_000) + b"x" * 100_000,
    "a worker's message after the hello": HELLO + protocol.send(protocol.Kind.READY, {}),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_closes_its_own_connection_only(stranger: socket.socket, client: Client, garbage: bytes) -> None:
    """collaboration"""
    stranger.sendall(garbage)
    data = everything(stranger)
    assert all("refuses" in text for text in refusals(data))
    assert client.call("faults", "echo", {"x": 1}) == {"x": 1}


def test_garbage_after_a_hello_closes_its_own_connection_only(stranger: socket.socket, client: Client) -> None:
    """collaboration"""
    stranger.sendall(HELLO)
    stranger.recv(65536)
    stranger.sendall(protocol.send(protocol.Kind.CALL, 1, "call", {"pool": "faults", "command": "sleep"}, {}))
    stranger.sendall(struct.pack(">I", 100_000_000))
    assert refusals(everything(stranger))
    assert client.call("faults", "echo", {"x": 1}) == {"x": 1}


def test_mutated_frames_do_no_harm(service: Service, client: Client) -> None:
    """collaboration: 150 connections with a hello and a call that are damaged somewhere"""
    seed = 20240607
    chance = random.Random(seed)
    call = protocol.send(protocol.Kind.CALL, 1, "call", {"pool": "faults", "command": "echo", "arguments": {}}, {})
    for _ in range(150):
        frames = bytearray(HELLO + call)
        for _ in range(chance.randint(1, 4)):
            frames[chance.randrange(len(frames))] = chance.randrange(256)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(service.path))
            sock.sendall(frames[: chance.randint(1, len(frames))])
    assert client.call("faults", "echo", {"seed": seed}) == {"seed": seed}
    eventually(lambda: service.clients == 1, what=f"the damaged connections are forgotten (seed {seed})")


def test_stranger_that_says_nothing_is_cut_off(
    service: Service, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    """collaboration"""
    monkeypatch.setattr(server_connection, "HELLO_PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10.0)
        sock.connect(str(service.path))
        assert "too slow" in refusals(everything(sock))[0]


def test_frame_that_is_not_finished_is_cut_off(
    service: Service, monkeypatch: pytest.MonkeyPatch, stranger: socket.socket
) -> None:
    """collaboration"""
    monkeypatch.setattr(server_connection, "FRAME_PATIENCE", 0.05)
    stranger.sendall(HELLO)
    stranger.recv(65536)
    stranger.sendall(struct.pack(">I", 1000) + b"x")
    assert "too slow" in refusals(everything(stranger))[0]


def test_client_that_does_not_read_is_cut_off(
    service: Service, monkeypatch: pytest.MonkeyPatch, stranger: socket.socket, client: Client
) -> None:
    """collaboration: what waits for one client is bounded, whatever it asks for"""
    monkeypatch.setattr(server_connection, "MAX_PENDING", 1_000_000)
    stranger.sendall(HELLO)
    stranger.recv(65536)
    asked = {"pool": "faults", "command": "payload", "arguments": {"bytes": 400_000}}
    for id in range(1, 12):
        stranger.sendall(protocol.send(protocol.Kind.CALL, id, "call", asked, {}))
    eventually(lambda: service.clients == 1, what="the client that does not read is gone")
    assert client.call("faults", "echo", {"x": 1}) == {"x": 1}


def test_client_that_reads_gets_every_answer_however_many_come_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    """collaboration: much at once is no reason to cut off a client that reads"""
    monkeypatch.setattr(server_connection, "MAX_PENDING", 1_000_000)
    with ThreadPoolExecutor(24) as threads:
        answers = threads.map(lambda _: client.call("faults", "payload", {"bytes": 4_000_000}), range(24))
        assert [len(answer) for answer in answers] == [4_000_000] * 24


def test_too_many_requests_of_one_client_are_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch, stranger: socket.socket
) -> None:
    """collaboration"""
    monkeypatch.setattr(server_connection, "MAX_IN_FLIGHT", 2)
    stranger.sendall(HELLO)
    stranger.recv(65536)
    asked = {"pool": "faults", "command": "sleep", "arguments": {"seconds": 30.0}}
    for id in (1, 2, 3):
        stranger.sendall(protocol.send(protocol.Kind.CALL, id, "call", asked, {}))
    assert "saturated" in refusals(stranger.recv(65536))[0]


def test_listener_that_is_no_supervisor_is_named_so(folder: Path) -> None:
    """collaboration"""
    path = folder / "odd.sock"
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(path))
        odd.listen()
        peer = []

        def answer() -> None:
            sock, _ = odd.accept()
            peer.append(sock)
            sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        import threading

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(errors.NotRunning, match="no DSPex supervisor"):
            Client(path)
        thread.join()
        peer[0].close()
