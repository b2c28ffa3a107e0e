"""One parity case at a time: put to DSPy and to the native side, and compared in every part."""

from __future__ import annotations

from typing import Any

from tests.support.parity.comparison import Report
from tests.support.parity.native_side import native_results
from tests.support.parity.oracle import Oracle
from tests.support.parity.public_side import public_call

KNOWN, UNKNOWN, CLAUDE = "openai/gpt-4o-mini", "openai/nobody-knows-it", "anthropic/claude-sonnet-4-5"


def case(signature: str | list[dict[str, Any]], **given: Any) -> dict[str, Any]:
    """A parity case: `signature` is DSPy's string form or a list of `field(...)`s; the rest has empty defaults."""
    empty = {
        "instructions": None,
        "adapter": "chat",
        "inputs": {},
        "demos": [],
        "answers": [],
        "calls": [],
        "parents": 0,
    }
    as_text = isinstance(signature, str)
    form = {"form": "text" if as_text else "fields", "text": signature if as_text else None}
    return {"kind": "predict", "fields": [] if as_text else signature, **form, **empty, **given}


def field(name: str, annotation: str | None = None, side: str = "input", **options: Any) -> dict[str, Any]:
    """One field of a signature that a string cannot say."""
    return {"name": name, "kind": side, "annotation": annotation, "options": options}


def out(name: str, annotation: str | None = None, **options: Any) -> dict[str, Any]:
    """An output field."""
    return field(name, annotation, "output", **options)


def call(*texts: str | None, model: str = KNOWN, lm: Any = None, config: Any = None) -> dict[str, Any]:
    """One `Predict` call, and what the model answers in turn."""
    replies = [{"text": text} for text in texts]
    return {
        "model": model, "lm": lm or {}, "config": config or {}, "replies": replies, "demos": True, "streamed": False,
    }  # fmt: skip


def agreed(oracle: Oracle, one: dict[str, Any]) -> dict[str, Any]:
    """The native results, once they are DSPy's own in messages, formats, answers, request bodies and error classes."""
    native, report = native_results(one), Report()
    report.add(one, native, oracle.ask([one])[0])
    assert not report.differences, "\n".join(report.differences)
    assert not report.routed, report.routed
    return native


def awaited(oracle: Oracle, one: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of awaited calls through the public interface, once they are native and DSPy's own."""
    return _public(oracle, one, "native", awaited=True)


def in_worker(oracle: Oracle, one: dict[str, Any], supervisor: Any, *, awaited: bool = False) -> list[dict[str, Any]]:
    """The results of calls that go to a worker by themselves, once they are DSPy's own."""
    return _public(oracle, one, "python", supervisor, awaited=awaited)


def _public(
    oracle: Oracle, one: dict[str, Any], route: str, supervisor: Any = None, *, awaited: bool
) -> list[dict[str, Any]]:
    made = [public_call(one, each, supervisor, awaited=awaited) for each in one["calls"]]
    report = Report()
    report.add_calls(one, made, oracle.ask([one])[0])
    assert not report.differences, "\n".join(report.differences)
    assert made and [each["route"] for each in made] == [route] * len(made)
    return made


def values(outcome: Any) -> dict[str, Any]:
    """{name: repr, or parts} of the first completion, or of a parsed answer."""
    found = outcome[0] if isinstance(outcome, list) else outcome
    return {eval(name[1]): shown[1] for name, shown in found[1]}
