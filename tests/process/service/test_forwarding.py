"""unit and collaboration: values that only travel through the service are checked once and passed on as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from dspex import Supervisor, errors
from dspex.control import Client, protocol
from dspex.control.call_request import arguments_of, call_request
from dspex.control.protocol import Kind
from dspex_worker.wire import MAX_CONTAINERS, MAX_ELEMENTS, Malformed, Packed, decode, messages
from tests.support.waiting import eventually

LARGE: tuple[Any, ...] = (
    {"text": "x" * 10_000},
    {"bytes": b"\xc4\xff" * 10_000, "deep": [[{"a": [1.5, None, True, -1, 2**64 - 1]}]] * 1000},
    {"arguments": {"arguments": [0] * 10_000}},
)
BYTE_LISTS = {
    "containers": lambda extra: b"\x81\xa1x" + b"\xdd" + (MAX_CONTAINERS + extra).to_bytes(4, "big")
    + b"\x90" * (MAX_CONTAINERS + extra),
    "elements": lambda extra: b"\x81\xa1x" + b"\xdd" + (MAX_ELEMENTS + extra).to_bytes(4, "big")
    + b"\xc0" * (MAX_ELEMENTS + extra),
    "levels": lambda extra: b"\x81\xa1x" + b"\x91" * (1000 + extra) + b"\xc0",
}  # fmt: skip


def request(arguments: bytes, *, pad: int = 0) -> bytes:
    """A client's CALL around arguments that no client of ours would send."""
    head = msgpack.packb([1, "call", {"pool": "faults" + " " * pad, "command": "echo", "arguments": None}])
    assert head.endswith(b"\xc0")
    return b"\x95\x03" + head[1:-1] + arguments + b"\x80"


@pytest.mark.parametrize("value", LARGE)
@pytest.mark.parametrize("id", [1, 200, 70_000, 2**40])
def test_packed_values_are_those_of_the_message(value: Any, id: int) -> None:
    """unit"""
    for body in (
        messages.write(Kind.RESULT, id, value, None)[4:],
        messages.write(Kind.RESULT, id, value, {"held": True})[4:],
        messages.write(Kind.END, id, value, {})[4:],
        messages.write(Kind.CHUNK, id, value)[4:],
    ):
        kind = Kind(messages.read(body)[0])
        packed = messages.value_in(body)
        assert decode(bytes(packed.data)) == value
        sent = messages.read(protocol.send_value(kind, 7, packed)[4:])
        assert sent[1:3] == [7, value] and sent[3:] in ([], [None])


@pytest.mark.parametrize("value", LARGE)
def test_packed_arguments_reach_the_worker_as_the_client_sent_them(value: dict[str, Any]) -> None:
    """unit"""
    frame = protocol.send(Kind.CALL, 5, "call", call_request("faults", "echo", value, session="s"), {})
    fields = protocol.read_request(frame[4:])[3]
    arguments = arguments_of(fields)
    assert isinstance(arguments, Packed)
    call, start, end = messages.write_call(9, "echo", arguments, {"deadline": 1.0})
    assert messages.read(call[4:]) == [Kind.CALL, 9, "echo", value, {"deadline": 1.0}]
    assert (call, start, end) == messages.write_call(9, "echo", value, {"deadline": 1.0})  # and with it the digest


def test_the_last_of_two_arguments_counts_packed_or_not() -> None:
    """unit"""
    two = b"\x82\xa9arguments\x81\xa1x\x01\xa9arguments\x81\xa1x\x02"
    body = b"\x95\x03\x01\xa4call" + two + b"\x80"
    assert messages.read(body)[3] == {"arguments": {"x": 2}}
    assert decode(bytes(messages.argument_in(body, "arguments").data)) == {"x": 2}


@pytest.mark.parametrize("kind", BYTE_LISTS)
@pytest.mark.parametrize("extra", [0, 8, 16, 20, 24, 26, 27, 28, 29, 30, 31, 32, 40, 60, 64, 65, 200])
def test_what_passes_here_a_worker_can_decode(kind: str, extra: int) -> None:
    """unit: at each limit of the codec, with all that a worker's frame has beside the arguments"""
    try:
        message = protocol.read_request(request(BYTE_LISTS[kind](extra), pad=5000))
    except Malformed:
        return
    meta = {"deadline": 1.0, "session": "s", "durable": True, "credit": 16, "nested": True}
    frame, _, _ = messages.write_call(9, "echo", message[3]["arguments"], meta)
    assert messages.read(frame[4:])[0] == Kind.CALL


@pytest.mark.parametrize("value", LARGE)
def test_large_values_come_back_equal(client: Client, value: dict[str, Any]) -> None:
    """collaboration"""
    assert client.call("faults", "echo", value) == value


def test_large_arguments_of_a_session_are_remembered(client: Client) -> None:
    """collaboration: answers that carry notes lose them to the pool, and keep their value"""
    with client.session("faults") as session:
        session.call("remember", {"key": "k", "value": "x" * 50_000})
        assert session.call("recall", {"key": "k"})["value"] == "x" * 50_000


@pytest.mark.parametrize("depth", [150, 199, 205, 1000, 1015, 1018, 1019, 1020, 1021, 1022, 1023, 1024, 1030])
def test_deep_arguments_end_no_worker(client: Client, supervisor: Supervisor, at_rest: None, depth: int) -> None:
    """collaboration: whatever a client sends, its own request fails, or its own connection"""
    deaths = supervisor.stats()["faults"]["counts"]["deaths"]
    frame = request(b"\x82\xa1p\xda\x20\x00" + b"p" * 0x2000 + b"\xa1x" + b"\x91" * depth + b"\xc0")
    client._link.connection._sock.setblocking(True)
    client._link.connection._sock.sendall(len(frame).to_bytes(4, "big") + frame)
    with Client(client.path) as other:
        assert other.call("faults", "echo", {"x": 1}) == {"x": 1}
    eventually(lambda: supervisor.stats()["faults"]["in_flight"] == 0, what="it has ended")
    assert supervisor.stats()["faults"]["counts"]["deaths"] == deaths


def test_unknown_options_are_named(client: Client) -> None:
    """collaboration"""
    with pytest.raises(errors.UnknownName, match="timeout"):
        client.call("faults", "echo", {}, timeot=1.0)  # type: ignore[call-arg]
    with pytest.raises(errors.UnknownName, match="idempotent"):
        client.stream("faults", "count", {"n": 1}, idempotent=True)  # type: ignore[call-arg]
    with client.session("faults") as session, pytest.raises(errors.UnknownName, match="session's call"):
        session.call("echo", {}, session="another")


def test_large_chunks_of_a_stream_come_as_they_were(client: Client, supervisor: Supervisor) -> None:
    """collaboration"""

    async def chunks(request: Any) -> AsyncIterator[Any]:
        for chunk in LARGE:
            yield chunk

    supervisor.register("large_chunks", chunks)
    with client.stream("faults", "ask_stream", {"name": "large_chunks", "arguments": {}}) as stream:
        assert tuple(stream) == LARGE
