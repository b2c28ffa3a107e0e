"""Unit: what each message of a worker may hold, and when it may come."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from dspex_worker.wire import MAGIC, Malformed, shapes
from dspex_worker.wire.messages import Kind, Message, read
from dspex_worker.wire.shapes import CREDIT_MOST, MessageOrder
from tests.support.pools.odd_bridge import odd_messages

HELLO: Message = [int(Kind.HELLO), MAGIC, 1, 0, {"pid": 7, "path": "/x"}]
READY: Message = [int(Kind.READY), {"ping": {"session": None}, "put": {"session": "write", "more": [1]}}]
GOOD: list[Message] = [
    HELLO,
    READY,
    [int(Kind.CALL), 2, "tool", {"any": {"thing": 1}}, {"for": 1, "credit": 16, "unknown": []}],
    [int(Kind.CALL), 2, "tool", {}, {"for": 1}],
    [int(Kind.RESULT), 1, object(), None],
    [int(Kind.RESULT), 1, {"raw": None}, {"held": True, "wrote": {"k": []}, "deleted": ["j"], "retire": "memory"}],
    [int(Kind.ERROR), 0, {}, None],
    [int(Kind.END), 3, None, {}],
    [int(Kind.CHUNK), 1, {}],
    [int(Kind.CANCEL), 2],
    [int(Kind.CREDIT), 2, CREDIT_MOST],
    [int(Kind.PONG), 0],
    [int(Kind.LOG), 0, 50, "logger", "text"],
    [int(Kind.EVENT), 1, "event", {"self": 1, "any word": 2}],
]
BAD: list[Message] = [
    [int(Kind.HELLO), MAGIC, 1, 0, {"pid": -1}],
    [int(Kind.HELLO), MAGIC, 1, 0, {"pid": 2**40}],
    [int(Kind.HELLO), MAGIC, 1, 0, {"pid": True}],
    [int(Kind.HELLO), MAGIC, 1, 0, {"lifeline": {}}],
    [int(Kind.READY), {"ping": None}],
    [int(Kind.READY), {"ping": {"session": []}}],
    [int(Kind.READY), {"": {"session": None}}],
    [int(Kind.CALL), 3, "tool", {}, {"for": 1}],
    [int(Kind.CALL), 2, "", {}, {"for": 1}],
    [int(Kind.CALL), 2, "tool", {}, {}],
    [int(Kind.CALL), 2, "tool", {}, {"for": []}],
    [int(Kind.CALL), 2, "tool", {}, {"for": 1, "credit": 2**62}],
    [int(Kind.CALL), 2, "tool", {}, {"for": 1, "credit": "16"}],
    [int(Kind.RESULT), 0, None, None],
    [int(Kind.RESULT), 2, None, None],
    [int(Kind.RESULT), -1, None, None],
    [int(Kind.RESULT), 1, None, {"held": 1}],
    [int(Kind.RESULT), 1, None, {"retire": {}}],
    [int(Kind.RESULT), 1, None, {"wrote": []}],
    [int(Kind.END), 1, None, {"deleted": "names"}],
    [int(Kind.END), 1, None, {"deleted": [[]]}],
    [int(Kind.CHUNK), 2, None],
    [int(Kind.CREDIT), 2, 0],
    [int(Kind.CREDIT), 2, CREDIT_MOST + 1],
    [int(Kind.PONG), -1],
    [int(Kind.LOG), 0, 2**40, "logger", "text"],
    [int(Kind.EVENT), 1, "", {}],
    [int(Kind.EVENT), 1, "event", {"pool": "another"}],
    [int(Kind.PING), 1],
    [int(Kind.DROP), "session"],
    [int(Kind.RESTORE), 1, "session", {}],
    [int(Kind.STOP)],
    [int(Kind.STACKS), 7],
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: Kind(message[0]).name)
def test_what_a_worker_says_passes(message: Message) -> None:
    """unit: also entries that this version does not know."""
    shapes.require(message)


@pytest.mark.parametrize("message", BAD, ids=lambda message: Kind(message[0]).name)
def test_what_a_worker_cannot_mean_is_malformed(message: Message) -> None:
    """unit"""
    with pytest.raises(Malformed):
        shapes.require(message)


def test_the_opening_has_one_order() -> None:
    """unit: HELLO, READY, and then neither again."""
    turns = MessageOrder()
    for message in (HELLO, READY, [int(Kind.RESULT), 1, None, None]):
        turns.take(message)
    for message in (HELLO, READY, [int(Kind.ERROR), 0, {}, None]):
        with pytest.raises(Malformed):
            turns.take(message)


@pytest.mark.parametrize("before", [0, 1])
def test_nothing_comes_before_its_turn(before: int) -> None:
    """unit: neither before HELLO nor between HELLO and READY, but for why the worker could not start."""
    for message in GOOD[2:]:
        turns = MessageOrder()
        for opening in (HELLO, READY)[:before]:
            turns.take(opening)
        may_come = message[0] in (Kind.LOG, Kind.EVENT) or message[:2] == [int(Kind.ERROR), 0]
        if before and may_come:
            turns.take(message)
            continue
        with pytest.raises(Malformed):
            turns.take(message)


def test_whatever_is_said_passes_or_is_malformed() -> None:
    """unit: 3,000 odd messages as they come from the wire; no other exception."""
    import msgpack

    random, counts = Random(3), {"passed": 0, "refused": 0}
    for _ in range(3_000):
        for message in odd_messages(random, 1):
            try:
                shapes.require(read(msgpack.packb(message)))
                counts["passed"] += 1
            except Malformed:
                counts["refused"] += 1
    assert min(counts.values()) > 200, counts


def test_the_examples_cover_every_kind() -> None:
    """unit: a kind that is added to the protocol is fuzzed too."""
    said = {
        message[0] for _, message in zip(range(2000), _stream(), strict=False) if message and type(message[0]) is int
    }
    assert {int(kind) for kind in Kind} <= said


def _stream() -> itertools.chain[Message]:
    random = Random(1)
    return itertools.chain.from_iterable(odd_messages(random, 1) for _ in itertools.count())
