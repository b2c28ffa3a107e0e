"""Process: a pool's `frame_limit` holds in both directions, for callbacks, and on the control socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import dspex
from dspex import errors
from dspex.control.backlog import LargeRequests
from dspex.control.held_requests import ALL_MOST, MIB, ONE_MOST, HeldRequests
from dspex.control.server import Service
from dspex.errors import FrameTooLarge, ResourceExhausted, SettingsError
from dspex.pools.callbacks import Callback
from dspex.testing.plugin import _holdings, _leaks
from tests.support.waiting import eventually

MB = 1_000_000


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """The supervisor is shared by the module: it is checked for leaks as a whole, by `sup`."""


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    """A pool with a large limit, one with the smallest, one with the usual."""
    pools = [
        dspex.PoolConfig("large", bridge="faults", size=1, frame_limit="72MiB"),
        dspex.PoolConfig("small", bridge="faults", size=1, frame_limit="1MiB"),
        dspex.PoolConfig("usual", bridge="faults", size=1),
    ]
    before = _holdings()
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.register("blob", _blob)
        yield supervisor
    eventually(lambda: not _leaks(before), what="nothing left behind")


def _blob(request: Callback) -> bytes:
    return b"b" * int(request.arguments["bytes"])


def test_what_a_larger_limit_allows_goes_there_and_back(sup: dspex.Supervisor) -> None:
    """Process: 64 MB are an argument and a result."""
    data = bytes(64 * MB)
    assert sup.call("large", "echo", {"data": data}, timeout=120) == {"data": data}


@pytest.mark.parametrize(("pool", "limit"), [("large", 72 * MIB), ("small", MIB), ("usual", 16 * MIB)])
def test_one_byte_too_many_is_refused_by_its_sender_with_the_pools_limit(
    sup: dspex.Supervisor, pool: str, limit: int
) -> None:
    """Process: arguments here, a result there; nothing is lost by it."""
    with pytest.raises(FrameTooLarge, match="frame_limit") as argument:
        sup.call(pool, "echo", {"data": bytes(limit)})
    assert (argument.value.side, argument.value.limit) == ("parent", limit)
    assert argument.value.actual > limit
    with pytest.raises(FrameTooLarge) as result:
        sup.call(pool, "payload", {"bytes": limit}, timeout=120)
    assert (result.value.side, result.value.limit) == ("worker", limit)
    assert sup.call(pool, "echo", {"n": 1}) == {"n": 1}


def test_a_callbacks_answer_has_the_limit_too(sup: dspex.Supervisor) -> None:
    """Process: a tool's 20 MB reach a worker of the large pool, and are an error of the call in the usual one."""
    arguments = {"name": "blob", "arguments": {"bytes": 20 * MB}}
    assert len(sup.call("large", "ask", arguments, timeout=120)) == 20 * MB
    with pytest.raises(errors.DspexError, match="16,777,216"):
        sup.call("usual", "ask", arguments, timeout=120)
    assert sup.call("usual", "echo", {"n": 1}) == {"n": 1}


def test_a_service_names_the_largest_limit_of_its_pools(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """Process: a client's frames may be as large as the pools', and each pool's limit holds for it."""
    data = bytes(64 * MB)
    path = tmp_path / "s" / "dspex.sock"
    path.parent.mkdir(mode=0o700)
    with Service(sup, path), dspex.connect(path) as client:
        assert client.call("large", "echo", {"data": data}, timeout=120) == {"data": data}
        with pytest.raises(FrameTooLarge) as refused:
            client.call("small", "echo", {"data": bytes(2 * MB)})
        assert refused.value.limit == MIB
        with pytest.raises(FrameTooLarge) as unsent:
            client.call("large", "echo", {"data": bytes(80 * MB)})
        assert unsent.value.side == "parent"
        assert client.call("small", "echo", {"n": 1}) == {"n": 1}


def test_large_frames_leave_the_services_bounds_as_they_are() -> None:
    """Process: one request over a client's share at a time, whoever sends it."""
    held = HeldRequests()
    held.hold(0, ONE_MOST + MIB)
    with pytest.raises(ResourceExhausted):
        held.hold(ONE_MOST + MIB, ONE_MOST + MIB)
    held.hold(0, ONE_MOST - MIB)
    held.hold(0, 900 * MIB)
    with pytest.raises(ResourceExhausted):
        held.hold(0, 900 * MIB)
    held.release(1028 * MIB)
    held.hold(0, ALL_MOST - MIB)


@pytest.mark.parametrize(("limit", "turns"), [(1024 * MIB, 1), (64 * MIB, 2), (16 * MIB, 8), (MIB, 8)])
@pytest.mark.asyncio
async def test_fewer_large_requests_are_read_at_once(limit: int, turns: int) -> None:
    """Process: unfinished requests have 128 MiB together, or one frame's length."""
    large = LargeRequests(limit)
    for _ in range(turns):
        await asyncio.wait_for(large.take_turn(), 10)
    waiting = asyncio.create_task(large.take_turn())
    await asyncio.sleep(0)
    assert large.is_crowded
    large.end_turn()
    await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("value", ["1023KiB", 0, "2GiB", "none", "much", True])
def test_a_limit_out_of_range_is_refused(value: object) -> None:
    """Process: before anything starts, with its key and range."""
    with pytest.raises(SettingsError, match=r"frame_limit.*") as refused:
        dspex.PoolConfig("f", bridge="faults", frame_limit=value)  # type: ignore[arg-type]
    assert refused.value.key == "pools.f.frame_limit"
