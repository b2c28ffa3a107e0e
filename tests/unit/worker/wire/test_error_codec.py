"""unit: exceptions as plain, bounded data, and back."""

from __future__ import annotations

from typing import Any

import pytest

from dspex_worker.wire import encode
from dspex_worker.wire.error_codec import (
    MESSAGE_MOST,
    NAME_MOST,
    TRACEBACK_MOST,
    ErrorDescription,
    ErrorEncoder,
    KnownError,
    clip,
    read,
)


def encoder(known: dict[str, Any], **options: Any) -> ErrorEncoder:
    return ErrorEncoder(classify=lambda error: KnownError("Kind", known), traceback=10_000, **options)


def build(found: ErrorDescription) -> BaseException:
    error = ValueError(found.message, found.facts)
    error.__cause__ = found.cause
    return error


def test_no_part_of_a_description_shows_a_secret() -> None:
    """unit: message, traceback and facts."""
    try:
        raise ValueError("key sk-1 was refused")
    except ValueError as error:
        described = encoder({"reason": "sk-1!"}).describe(error, ["sk-1"])
    assert "sk-1" not in repr(described)
    assert described["message"] == "key [key] was refused" and described["facts"] == {"reason": "[key]!"}


def test_facts_share_one_bound() -> None:
    """unit: each beyond it is cut, and the smaller ones after it are kept."""
    facts = {"first": "a" * 600, "second": ["b" * 600], "third": 3}
    described = encoder(facts, facts=1000).describe(ValueError())["facts"]
    assert described["first"] == facts["first"] and described["third"] == 3
    assert described["second"] == repr(["b" * 600])


@pytest.mark.parametrize("keeps_types", [True, False])
def test_any_fact_can_be_sent(keeps_types: bool) -> None:
    """unit: cycles, objects whose repr raises, lone surrogates, numbers that are too large."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    cycle: list[Any] = []
    cycle += [cycle, cycle]
    facts = {"cycle": cycle, "odd": Odd(), "text": "\ud800", "huge": 2**80, "keys": {1: Odd}, "tuple": (1, (2,))}
    described = encoder(facts, keeps_types=keeps_types).describe(ValueError("\ud800"))
    assert len(encode(described)) < 100_000
    read(described, build)


def test_types_and_causes_come_back_only_to_who_builds() -> None:
    """unit: a description of a worker makes no exception, however it is written."""
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    facts = {"pair": (1, ["x", KeyError("nested")]), "plain": {"tuple": [1]}}
    described = encoder(facts, keeps_types=True).describe(error)
    cautious = read(described)
    assert cautious.cause is None and cautious.facts == {"plain": {"tuple": [1]}}
    whole = read(described, build)
    assert whole.facts["pair"][:1] == (1,) and isinstance(whole.facts["pair"][1][1], ValueError)
    assert whole.facts["plain"] == {"tuple": [1]} and str(whole.cause).startswith("(\"'inner'\"")


@pytest.mark.parametrize("part", ["kind", "type", "message", "traceback", "facts", "typed", "cause"])
@pytest.mark.parametrize("value", [None, 5, [], {}, {"a": {"error": {}}}, "x" * 10**6, b"x"])
def test_whatever_is_read_is_bounded_and_of_its_type(part: str, value: Any) -> None:
    """unit: a hostile description costs nothing but itself."""
    for described in ({part: value}, value):
        found = read(described, build)
        for text, most in ((found.name, NAME_MOST), (found.message, MESSAGE_MOST), (found.traceback, TRACEBACK_MOST)):
            assert type(text) is str and len(text) <= most
        assert type(found.facts) is dict


def test_a_text_is_cut_in_the_middle() -> None:
    """unit: and is never longer than it may be."""
    assert clip("abc", 3) == "abc"
    cut = clip("a" * 500 + "b" * 500, 200)
    assert len(cut) <= 200 and cut.startswith("aaa") and cut.endswith("bbb") and "characters left out" in cut
