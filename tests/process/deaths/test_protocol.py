"""Process: a worker that breaks the protocol is retired; nobody else notices, and the host never wedges."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from dspex.errors import ProtocolError, WorkerDied
from tests.support.supervisors import Supervise
from tests.support.waiting import SOON, Caller, Gate, all_ready, eventually, lines, pids

HEADER = struct.Struct(">I")
BOMB = b"\xdd" + struct.pack(">I", 3_000_000) + b"\x80" * 3_000_000


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xffthis is not a frame",
        HEADER.pack(0),
        HEADER.pack(17 * 1024 * 1024),
        HEADER.pack(5) + b"\xc1\xc1\xc1\xc1\xc1",
        HEADER.pack(3) + b"\x01\x02\x03",
        HEADER.pack(2) + b"\x91\x63",
        HEADER.pack(2) + b"\x91\x04",
        HEADER.pack(3) + b"\x92\x10\x01",
        HEADER.pack(len(BOMB)) + BOMB,
    ],
    ids=["text", "empty", "oversize", "reserved", "trailing", "kind", "shape", "stop", "bomb"],
)
def test_what_is_no_message_retires_the_worker(supervise: Supervise, data: bytes) -> None:
    """Process (DESIGN §6, scorecard 15, 17): ProtocolError; another worker takes its place at once."""
    sup = supervise(size=1)
    before = pids(sup)
    with pytest.raises(ProtocolError):
        sup.call("f", "garbage", {"data": data}, timeout=20)
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
    assert pids(sup) != before
    assert sup.stats()["f"]["poison"] == {}


def test_only_that_worker_is_retired(supervise: Supervise) -> None:
    """Process: calls in the other worker answer."""
    sup = supervise(size=2, concurrency=1)
    all_ready(sup, 2)
    with Gate(sup) as gate:
        other = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        with pytest.raises(ProtocolError):
            sup.call("f", "garbage")
        gate.open()
        other.outcome()


def test_a_truncated_frame_before_the_end_is_a_death(supervise: Supervise) -> None:
    """Process (scorecard 15): the half frame is dropped with its worker, and the call told how that ended."""
    sup = supervise(size=1)
    with pytest.raises(WorkerDied) as caught:
        sup.call("f", "garbage", {"data": HEADER.pack(1000) + b"half", "exit": True})
    assert caught.value.exit_code == 0


def test_a_header_without_a_body_stalls_only_its_worker(supervise: Supervise) -> None:
    """Process (scorecard 15): the deadline ends the call, and the stuck worker goes after its grace."""
    sup = supervise(size=2, concurrency=1, cancel_grace=0.2)
    all_ready(sup, 2)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        sup.call("f", "garbage", {"data": HEADER.pack(1000)}, timeout=0.3)
    assert time.monotonic() - began < SOON
    for n in range(20):
        assert sup.call("f", "echo", {"n": n}) == {"n": n}


def test_an_answer_to_nobodys_call_is_ignored(supervise: Supervise) -> None:
    """Process (T45): unknown ids answer nobody; the worker stays."""
    sup = supervise(size=1)
    before = pids(sup)
    body = b"\x94\x04\xce\x3b\x9a\xc9\xff\xa4fake\xc0"
    caller = Caller(sup.call, "f", "garbage", {"data": HEADER.pack(len(body)) + body, "seconds": 0.1})
    caller.outcome()
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
    assert pids(sup) == before


def test_a_repeated_request_never_runs_twice(supervise: Supervise, tmp_path: Path) -> None:
    """Process (C5): the same id twice: the worker refuses the second, and the command runs once."""
    sup = supervise(size=1)
    dispatcher = sup.pool("f")._dispatcher
    call = sup.pool("f")._caller.make("effect", {"path": str(tmp_path / "effects"), "token": "x"}, {})
    call.frame = call.frame * 2
    call.wait_in_thread()
    dispatcher.submit(call)
    assert call.lock is not None
    assert call.lock.acquire(timeout=10)
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
    eventually(dispatcher.is_idle)
    assert lines(tmp_path / "effects") == ["x"]
