"""Unit: values and frames: what is accepted comes back equal and of the same types; the rest is refused by name."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dspex_worker.wire import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_ELEMENTS,
    FrameBuffer,
    Kind,
    Malformed,
    OverLimit,
    Unencodable,
    decode,
    encode,
    frame,
    messages,
)
from tests.support.wire import plain_msgpack

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(["\u0105\u010d\u0117", b"\xd6\xff\xc7\x0c\xff", 0xC4C5C6, -0.0, math.inf])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5)
)


class Color(IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


FOREIGN = st.sampled_from(
    [
        (1, 2),
        {1, 2},
        Text("x"),
        Color.RED,
        2**64,
        -(2**63) - 1,
        1 + 2j,
        object(),
        bytearray(b"x"),
        memoryview(b"x"),
        "\ud800",
        {1: 2},
        {b"k": 1},
        {Text("k"): 1},
        {"\udfff": 1},
        msgpack.Timestamp(1),
        msgpack.ExtType(1, b""),
    ]
)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types, at every depth; NaN is NaN, and -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if type(a) is list:
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is dict:
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if type(a) is float:
        return a.hex() == b.hex()
    return bool(a == b)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(VALUES)
def test_what_is_accepted_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    """unit: DESIGN §7 decode(encode(x)) == x."""
    packed = encode(value)
    assert same(decode(packed), value)
    assert same(plain_msgpack.decode(packed), value)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(FOREIGN, st.lists(st.integers(0, 3), max_size=6), VALUES)
def test_anything_else_is_refused_with_the_path_to_it(foreign: Any, nesting: list[int], neighbor: Any) -> None:
    """unit: DESIGN §6 EncodeError(path, type)."""
    value, path = foreign, ""
    for step in nesting:
        if step == 0:
            value, path = [value, neighbor], f"[0]{path}"
        elif step == 1:
            value, path = [neighbor, value], f"[1]{path}"
        else:
            value, path = {"a": neighbor, "k": value}, f"['k']{path}"
    with pytest.raises(Unencodable) as caught:
        encode(value, root="arguments")
    assert caught.value.path.startswith(f"arguments{path}")
    rest = caught.value.path.removeprefix(f"arguments{path}")
    assert rest == "" or rest.startswith(" key "), caught.value.path


def test_a_value_is_refused_before_another_that_comes_later() -> None:
    """unit: the first offender is named."""
    with pytest.raises(Unencodable, match=r"value\['b'\]\[1\] is set"):
        encode({"a": 1, "b": [0, {1}], "c": (1,)})


def test_every_field_of_a_message_is_checked() -> None:
    """unit: also notes, names and ids."""
    with pytest.raises(Unencodable, match=r"result\['x'\] is tuple"):
        messages.write(Kind.RESULT, 1, {"x": ()}, None, root="result")
    with pytest.raises(Unencodable, match="arguments key 1"):
        messages.write_call(1, "run", {1: 2}, {})  # type: ignore[dict-item]
    with pytest.raises(Unencodable, match=r"meta\['session'\] is Text"):
        messages.write_call(1, "run", {}, {"session": Text("s")})
    with pytest.raises(Unencodable, match="name is Text"):
        messages.write_call(1, Text("run"), {}, {})
    with pytest.raises(Unencodable, match="arguments is str: it holds lone surrogates"):
        messages.write_call(1, "run", "\ud800", {})  # type: ignore[arg-type]


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda extra: _nested(MAX_DEPTH + extra), "levels"),
        (lambda extra: [[] for _ in range(MAX_CONTAINERS - 1 + extra)], "containers"),
        (lambda extra: [None] * (MAX_ELEMENTS + extra), "elements"),
    ],
)
def test_the_sender_keeps_every_limit_and_what_is_at_the_limit_arrives(make: Any, what: str) -> None:
    """unit: DESIGN §7: the receiver takes whatever the sender lets pass, also inside a message."""
    with pytest.raises(OverLimit) as caught:
        encode(make(1))
    assert caught.value.what == what
    at_limit = make(0)
    (body,) = FrameBuffer().feed(messages.write(Kind.RESULT, 1, at_limit, None))
    assert messages.read(body)[2] == at_limit


def test_two_fields_of_a_message_share_one_limit() -> None:
    """unit: the receiver counts a frame as a whole."""
    half = [[] for _ in range(MAX_CONTAINERS // 2 + 1)]
    with pytest.raises(OverLimit):
        messages.write(Kind.RESULT, 1, half, {"wrote": half})


def test_a_cycle_is_refused() -> None:
    """unit: it would never end."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(OverLimit, match="levels"):
        encode(cycle)


def test_an_oversized_frame_is_refused_by_its_sender() -> None:
    """unit: DESIGN §6 FrameTooLarge."""
    with pytest.raises(OverLimit, match="17 bytes, the limit is 16"):
        frame(b"x" * 17, 16)
    assert frame(b"x" * 16, 16) == b"\0\0\0\x10" + b"x" * 16


@pytest.mark.parametrize("padding", [0, 70_000], ids=["small", "large"])
@pytest.mark.parametrize(
    "alien",
    [
        b"\x81\xc4\x01k\x01",  # bytes as a key
        b"\x81\xc5\x00\x01k\x01",
        b"\x81\x01\x01",  # an int as a key
        b"\x81\xc0\x01",
        b"\xd6\xff\x00\x00\x00\x01",  # timestamps in their three sizes
        b"\xd7\xff\x00\x00\x00\x01\x00\x00\x00\x01",
        b"\xc7\x0c\xff" + bytes(12),
        b"\xd4\x01\x00",  # extension types
        b"\xd8\x05" + bytes(16),
        b"\xc7\x03\x01abc",
        b"\xc8\x00\x01\x02a",
        b"\xa2\xc3\x28",  # not UTF-8
        b"\xa3\xed\xa0\x80",  # a surrogate
        b"\xc1",  # never used
        b"\xdd\xff\xff\xff\xff",  # longer than all memory
        b"\xdb\xff\xff\xff\xff",
        b"\x91" * 2000,
    ],
)
def test_the_receiver_refuses_what_the_sender_never_sends(alien: bytes, padding: int) -> None:
    """unit: DESIGN §6 ProtocolError."""
    for wrap in (b"\x92", b"\x93\xc0"):
        body = wrap + (
            b"\xda" + padding.to_bytes(2, "big") if padding < 2**16 else b"\xdb" + padding.to_bytes(4, "big")
        )
        with pytest.raises(Malformed):
            decode(body + b"a" * padding + alien)


def test_rubbish_after_a_value_is_refused() -> None:
    """unit: one frame, one value."""
    with pytest.raises(Malformed):
        decode(b"\x01\x02")


@pytest.mark.parametrize(
    "body",
    [
        [],
        [99],
        ["CALL"],
        [True, 1],
        [Kind.CALL.value, 1, "run", {}],
        [Kind.CALL.value, "1", "run", {}, {}],
        [Kind.CALL.value, True, "run", {}, {}],
        [Kind.RESULT.value, 1, None, []],
        [Kind.ERROR.value, 1, "no", None],
        [Kind.STOP.value, 1],
        {"kind": 3},
        None,
    ],
)
def test_a_value_that_is_no_message_is_refused(body: Any) -> None:
    """unit: kind and shape are checked."""
    with pytest.raises(Malformed):
        messages.read(encode(body))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(VALUES, min_size=1, max_size=6), st.lists(st.integers(1, 40), min_size=1))
@example([b"x" * 1000], [1])
def test_frames_fed_in_pieces_come_out_whole(values: list[Any], cuts: list[int]) -> None:
    """unit: wherever the stream is cut."""
    bodies = [encode(value) for value in values]
    stream = b"".join(frame(body) for body in bodies)
    buffer, out, at, turn = FrameBuffer(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        out += list(buffer.feed(stream[at : at + size]))
        at, turn = at + size, turn + 1
    assert out == bodies
    assert buffer.pending == 0


def test_a_length_over_the_limit_is_refused_before_its_bytes_arrive() -> None:
    """unit: nothing is collected for a frame that will not be taken."""
    buffer = FrameBuffer(limit=100)
    with pytest.raises(Malformed, match="101 bytes was announced"):
        list(buffer.feed((101).to_bytes(4, "big")))


def test_an_empty_frame_is_refused() -> None:
    """unit: a length of zero says nothing."""
    with pytest.raises(Malformed):
        list(FrameBuffer().feed(bytes(4)))


def test_frames_before_a_bad_length_are_still_given() -> None:
    """unit: a reply that arrived counts, whatever follows it."""
    seen = []
    with pytest.raises(Malformed):
        seen.extend(FrameBuffer().feed(frame(b"\x01") + b"\xff\xff\xff\xff"))
    assert seen == [b"\x01"]


def test_the_digest_bytes_of_a_call_are_those_of_its_arguments() -> None:
    """unit: C7b: equal arguments, equal bytes; whatever the id, name and meta."""
    arguments = {"q": "x", "n": [1, 2.5]}
    first, start, end = messages.write_call(1, "run", arguments, {"deadline": 5.0})
    again, *span = messages.write_call(70_001, "run", arguments, {})
    assert first[start:end] == again[slice(*span)] == encode(arguments)
    assert messages.read(first[4:]) == [Kind.CALL, 1, "run", arguments, {"deadline": 5.0}]
