"""Unit: every exception crosses the control socket as the class that it is."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from dspex import errors
from dspex.control import error_messages
from dspex_worker.wire import decode, encode
from dspex_worker.wire.error_codec import TEXT_MOST

CLASSES = sorted(
    (
        found
        for _, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, errors.DspexError) and found.__module__ == errors.__name__
    ),
    key=lambda found: found.__name__,
)

_BY_NAME: dict[str, Any] = {
    "known": ("alpha", "alpine"),
    "keys": ["b", "a"],
    "expected": ["answer"],
    "parsed": {"answer": [1, {"deep": None}]},
    "causes": (errors.CallCancelled("first"), ValueError("second")),
    "side": "worker",
    "phase": "queued",
    "name": "alpin",
}


def example(found: type[errors.DspexError]) -> errors.DspexError:
    """Give an instance with every constructor parameter set to something that can be told from its default."""
    parameters = list(inspect.signature(found.__init__).parameters.values())[1:]
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = _value(parameter)
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            positional.append(value)
    takes_any = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)  # Exception's own
    return found(*(["a message"] if takes_any else positional), **named)


def _value(parameter: inspect.Parameter) -> Any:
    if parameter.name in _BY_NAME:
        return _BY_NAME[parameter.name]
    first = str(parameter.annotation).split(" |")[0]
    return {"int": 7, "float": 2.5, "Started": "yes"}.get(first, f"the {parameter.name}")


def over_the_wire(error: BaseException) -> BaseException:
    return error_messages.rebuild(decode(encode(error_messages.describe(error))))


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_every_class_crosses_with_its_message_facts_and_types(found: type[errors.DspexError]) -> None:
    error = example(found)
    crossed = over_the_wire(error)
    assert type(crossed) is found
    assert str(crossed) == str(error)
    assert crossed.retryable == error.retryable
    facts, expected = dict(vars(crossed)), dict(vars(error))
    causes, expected_causes = facts.pop("causes", ()), expected.pop("causes", ())
    assert facts == expected
    assert {key: type(value) for key, value in facts.items()} == {key: type(value) for key, value in expected.items()}
    assert [(type(c), str(c)) for c in causes] == [(type(c), str(c)) for c in expected_causes]


def test_a_cause_crosses_too() -> None:
    """unit"""
    error = errors.PoolClosed("closed")
    error.__cause__ = errors.WorkerBootError("no", pool="p", stderr_tail="tail")
    crossed = over_the_wire(error)
    assert isinstance(crossed.__cause__, errors.WorkerBootError)
    assert crossed.__cause__.stderr_tail == "tail"


def test_a_class_that_this_side_lacks_becomes_a_remote_error() -> None:
    """unit"""
    crossed = error_messages.rebuild({"kind": "FromTheFuture", "message": "hello", "facts": {"a": 1}})
    assert isinstance(crossed, errors.RemoteError)
    assert crossed.type == "FromTheFuture"
    assert crossed.message == "hello"


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "exec", "__import__", "DspexError.x", ""])
def test_a_description_cannot_make_anything_but_an_exception(name: str) -> None:
    """unit"""
    for part in ("kind", "type"):
        crossed = error_messages.rebuild({part: name, "message": "m"})
        assert isinstance(crossed, errors.RemoteError)


@pytest.mark.parametrize("error", [ValueError("bad"), TimeoutError("late"), KeyError("gone"), OSError("no")])
def test_builtin_exceptions_keep_their_class_and_text(error: Exception) -> None:
    """unit"""
    crossed = over_the_wire(error)
    assert type(crossed) is type(error)
    assert str(crossed) == str(error)


def test_a_builtin_that_cannot_be_made_from_a_message_becomes_a_remote_error() -> None:
    """unit"""
    crossed = over_the_wire(UnicodeDecodeError("utf-8", b"x", 0, 1, "why"))
    assert isinstance(crossed, errors.RemoteError)
    assert crossed.type == "UnicodeDecodeError"


def test_huge_and_odd_facts_still_cross() -> None:
    """unit"""
    error = errors.RemoteError("T", "m", traceback="x" * 1_000_000)
    error.odd = object()  # type: ignore[attr-defined]
    error.huge = 2**80  # type: ignore[attr-defined]
    error.text = "\ud800"  # type: ignore[attr-defined]
    crossed = over_the_wire(error)
    assert isinstance(crossed, errors.RemoteError)
    assert len(crossed.traceback) <= TEXT_MOST
    assert crossed.huge == str(2**80)  # type: ignore[attr-defined]


def test_a_cycle_of_causes_ends() -> None:
    """unit"""
    first, second = errors.PoolClosed("1"), errors.PoolClosed("2")
    first.__cause__, second.__cause__ = second, first
    assert str(over_the_wire(first)) == "1"
