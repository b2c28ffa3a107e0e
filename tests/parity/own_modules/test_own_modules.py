"""Parity: programs of users' own, called through DSPex and, beside it, in plain DSPy.

The cases of DSPy's tests/primitives and tests/predict on custom modules, told anew; docs/internals/upstream-cases.md
lists them. Each is called in a worker and in a process that knows only DSPy, against the same scripted endpoint: what
comes back and what was sent must be the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM
from tests.parity.own_modules.conftest import Both
from tests.support.own_modules.beside import HERE, Dspy

pytestmark = pytest.mark.parity


def test_the_oracle_is_dspy_itself(beside: Dspy, lm: FakeLM) -> None:
    """contract: a case that DSPy cannot run is an error here, so the comparisons below can fail."""
    found = beside.ask(lm, f"{HERE}.compositions:TwoHops", how="call", inputs={"question": "q"})
    assert found.outcome == {"prediction": {"answer": "answer of query of q"}} and len(found.sent) == 2
    refused = beside.ask(lm, f"{HERE}.compositions:TwoHops", how="acall", inputs={"question": "q"})
    assert refused.error == "AttributeError"


COMPOSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("TwoHops", {}, {"question": "q"}),
    ("Nested", {}, {"question": "q"}),
    ("Collections", {}, {"text": "q"}),
    ("Collections", {"steps": 3}, {"text": "q"}),
    ("WithoutInit", {}, {"question": "q"}),
    ("NoConstructor", {}, {"question": "q"}),
    ("Configured", {"style": "short"}, {"question": "q"}),
    ("Configured", {"style": "short", "limit": 5, "tags": ["a", "b"], "zeal": 2}, {"question": "q"}),
    ("TakesSignature", {}, {"question": "q"}),
    ("OwnCall", {}, {"question": "q"}),
    ("Typed", {}, {"question": "q"}),
    ("OfInt", {}, {"question": "q"}),
    ("Loud", {}, {"question": "q"}),
    ("Outer.Inner", {}, {"question": "q"}),
    ("Outer.make", {"hops": 2}, {"question": "q"}),
    ("make", {"kind": "nested"}, {"question": "q"}),
    ("Defaults", {}, {"question": "q"}),
    ("Defaults", {}, {"question": "q", "tone": "warm", "k": 5}),
    ("AnyKeywords", {}, {"question": "q", "more": [1, 2]}),
    ("AnyArguments", {}, {"a": "q", "b": "r"}),
    ("Awkward", {}, {"signature": 1, "timeout": 2, "config": 3, "demos": 4, "lm": 5}),
    ("OwnLoop", {}, {"question": "q"}),
    ("InThreads", {}, {"questions": ["q", "r"]}),
    ("Asyncified", {}, {"question": "q"}),
]


@pytest.mark.parametrize(("what", "init", "inputs"), COMPOSED, ids=[f"{c[0]}-{i}" for i, c in enumerate(COMPOSED)])
def test_modules_of_modules(both: Any, what: str, init: dict[str, Any], inputs: dict[str, Any]) -> None:
    """parity: composed modules and the forms of `forward`: the same answer by the same requests."""
    dspy, dspex_ = both(f"compositions:{what}", init=init, **inputs)
    assert dspy.error is None, dspy.message
    assert dspex_.outcome == dspy.outcome, dspex_.message
    assert dspex_.sent == dspy.sent


@pytest.mark.parametrize("what", ["AsyncOnly", "BothWays"])
def test_async_modules_awaited(both: Any, what: str) -> None:
    """parity: `aforward` runs where `acall` is awaited."""
    dspy, dspex_ = both(f"compositions:{what}", "acall", question="q")
    assert dspy.error is None, dspy.message
    assert (dspex_.outcome, dspex_.sent) == (dspy.outcome, dspy.sent), dspex_.message


def test_a_module_of_two_ways_called(both: Any) -> None:
    """parity: `forward` runs where it is called."""
    dspy, dspex_ = both("compositions:BothWays", question="q")
    assert (dspex_.outcome, dspex_.sent) == (dspy.outcome, dspy.sent), dspex_.message


@pytest.mark.parametrize("how", ["call", "acall"])
def test_either_way_of_calling_runs_what_the_module_has(both: Any, how: str) -> None:
    """parity: where DSPy knows only one way ("no attribute 'forward'"), either verb of DSPex runs that way."""
    other = {"call": "acall", "acall": "call"}[how]
    what = {"call": "AsyncOnly", "acall": "TwoHops"}[how]
    assert both(f"compositions:{what}", how, question="q")[0].error == "AttributeError"
    dspy, _ = both(f"compositions:{what}", other, question="q")
    _, dspex_ = both(f"compositions:{what}", how, question="q")
    assert (dspex_.outcome, dspex_.sent) == (dspy.outcome, dspy.sent), dspex_.message


PLAIN = [
    "none",
    "text",
    "number",
    "float",
    "bool",
    "bytes",
    "dict",
    "empty",
    "list",
    "tuple",
    "prediction",
    "bare",
    "example",
    "predictions",
    "pair",
    "nested",
    "nothing",
    "numbers",
    "unicode",
    "completions",
]


@pytest.mark.parametrize("kind", PLAIN)
def test_whatever_forward_returns(both: Any, kind: str) -> None:
    """parity: None, text, dicts, tuples, predictions in lists and in each other."""
    dspy, dspex_ = both("returns:Returns", kind=kind)
    assert dspy.error is None, dspy.message
    assert dspex_.outcome == _predicted(dspy.outcome), dspex_.message


def _predicted(value: Any) -> Any:
    """The same with each example as a prediction: both are fields by name, and the host has one class for them."""
    if isinstance(value, dict):
        return {{"example": "prediction"}.get(key, key): _predicted(item) for key, item in value.items()}
    return [_predicted(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", ["enum", "model", "dataclass", "date", "datetime", "decimal", "set", "models"])
def test_values_of_classes_in_a_prediction(both: Any, kind: str) -> None:
    """parity: without a signature, values of classes come as the plain data that they are made of."""
    dspy, dspex_ = both("returns:Rich", kind=kind)
    assert dspex_.error is None, dspex_.message
    assert _bare(dspex_.outcome) == _bare(dspy.outcome)


def _bare(value: Any) -> Any:
    """What values of classes are made of, dates as text."""
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)) in ("model", "enum", "set", "date", "Decimal", "dataclass", "datetime"):
        ((kind, inner),) = value.items()
        return (
            inner.replace(" ", "T") if kind == "datetime" else _bare({"dict": inner} if kind == "dataclass" else inner)
        )
    return {key: _bare(item) for key, item in value.items()}


FAILURES = [
    "value",
    "key",
    "attribute",
    "assert",
    "own",
    "chained",
    "timeout",
    "stop",
    "missing",
    "forward",
    "unset",
    "other",
]


@pytest.mark.parametrize("kind", FAILURES)
def test_a_modules_error_arrives_with_its_class_and_words(both: Any, kind: str) -> None:
    """parity: the class's name and the message; and nothing is sent twice."""
    dspy, dspex_ = both("returns:Fails", kind=kind)
    assert dspy.error is not None
    assert dspex_.error is not None, dspex_
    assert (dspex_.error.rpartition(".")[2], dspex_.message) == (dspy.error, dspy.message)
    assert dspex_.sent == dspy.sent


def test_a_module_that_exits_fails_its_call_alone(both: Any) -> None:
    """process: `sys.exit()` in a module ends its call, and the worker serves the next."""
    dspy, dspex_ = both("returns:Fails", kind="exit")
    assert dspy.error == "SystemExit" and dspex_.error is not None
    assert len(dspex_.sent) == 1, "nor is it run again"
    assert both("returns:Returns", kind="text")[1].error is None


def test_a_constructor_that_fails_says_so_with_the_modules_name(both: Any) -> None:
    """parity: the error of `__init__` in its own words, with the module that it is about."""
    dspy, dspex_ = both("returns:FailsToBuild", question="q")
    assert dspy.error == "FileNotFoundError" and dspex_.error is not None
    assert "/nowhere/at/all.txt" in dspex_.message
    assert "FailsToBuild" in dspex_.message


def test_an_import_that_fails_says_whose_it_is(supervisor: dspex.Supervisor, lm: FakeLM, tmp_path: Path) -> None:
    """process: the module that was to be imported, beside the one that is missing."""
    (tmp_path / "own_but_broken.py").write_text("import no_such_package_anywhere\n", encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(dspex.RemoteError, match=r"no_such_package_anywhere.*own_but_broken:Mine"):
            dspex.module("own_but_broken:Mine", supervisor=supervisor, lm=lm)(question="q")
    finally:
        sys.path.remove(str(tmp_path))


def test_outputs_that_a_signature_names_must_be_there(supervisor: dspex.Supervisor, lm: FakeLM) -> None:
    """process: what is missing is named, with the module."""
    program = dspex.module(
        f"{HERE}.compositions:Nested", signature="question -> answer, score: float", supervisor=supervisor, lm=lm
    )
    with pytest.raises(dspex.InvalidReturn, match=r"Nested returned answer, verdict; its signature also has score"):
        program(question="q")


INSIDE = ["Copies", "Histories", "Scoped", "AsksTheModel", "Options", "CalledBack", "Usage", "Traced"]


@pytest.mark.parametrize("what", INSIDE)
def test_what_a_module_sees_of_dspy(both: Any, what: str) -> None:
    """parity: copies, contexts, the model by itself, options, callbacks in order, usage, the trace."""
    dspy, dspex_ = both(f"insides:{what}", question="q")
    assert dspy.error is None, dspy.message
    assert dspex_.outcome == dspy.outcome, dspex_.message
    assert dspex_.sent == dspy.sent


def test_what_a_module_finds_in_itself(both: Any) -> None:
    """parity: names of predictors, parameters and sub-modules, in order."""
    dspy, dspex_ = both("insides:Names")
    assert dspy.error is None, dspy.message
    assert dspex_.outcome == dspy.outcome, dspex_.message


def test_a_module_saves_and_loads_by_itself(both: Any, tmp_path: Any) -> None:
    """parity: `save` and `load` inside `forward`."""
    dspy, dspex_ = both("insides:Saves", folder=str(tmp_path))
    assert dspy.error is None and dspex_.outcome == dspy.outcome, dspex_.message


def test_histories_hold_the_calls_that_run_and_no_other(both: Both, supervisor: dspex.Supervisor, lm: FakeLM) -> None:
    """process: a second call finds nothing of the first, which DSPy would keep; nor does another program."""
    first, second = (both("insides:Histories", question="q")[1] for _ in range(2))
    assert first.error is None and first.outcome == second.outcome
    kept = dspex.function(f"{HERE}.insides:kept_histories", supervisor=supervisor, lm=lm)
    assert kept() == [0, 0]


def test_state_on_self_is_kept_between_calls(both: Any) -> None:
    """parity: the instance is shared, as DSPy's is."""
    for question in ("a", "b", "c"):
        dspy, dspex_ = both("insides:Counter", question=question)
        assert dspex_.outcome == dspy.outcome, dspex_.message
    assert dspex_.outcome["prediction"]["calls"] == 3


def test_an_isolated_module_starts_afresh_each_time(supervisor: dspex.Supervisor, lm: FakeLM) -> None:
    """process: `isolate=True` gives each call a copy."""
    program = dspex.module(f"{HERE}.insides:Counter", isolate=True, supervisor=supervisor, lm=lm)
    assert [program(question=each).calls for each in "abc"] == [1, 1, 1]


AGENTS: list[tuple[str, str, dict[str, Any]]] = [
    ("Agent", "call", {"question": "q"}),
    ("AsyncAgent", "acall", {"question": "q"}),
    ("Invites", "call", {"guest": "Ann"}),
    ("InvitesAwaited", "acall", {"guest": "Ann"}),
    ("ToolsByHand", "call", {"city": "Rome"}),
    ("TypedInside", "call", {"names": ["a", "b"]}),
    ("Attempts", "call", {"question": "q"}),
    ("Refined", "call", {"question": "q"}),
    ("Chat", "call", {"questions": ["q", "r"]}),
    ("Computes", "call", {"question": "q"}),
    ("Neighbors", "call", {"question": "owl"}),
]


_ENDINGS = {
    "Agent": ("sunny in Rome", "Execution error in broken", "no city Rome"),
    "AsyncAgent": ("rain in Rome", "Execution error in slow_broken", "no city Rome"),
    "Invites": ("Ann, come to Fair on Friday", "'additions'"),
    "InvitesAwaited": ("Ann, come to Fair on Friday",),
}


@pytest.mark.parametrize(("what", "how", "inputs"), AGENTS, ids=[case[0] for case in AGENTS])
def test_agents_ensembles_and_types_inside(both: Any, what: str, how: str, inputs: dict[str, Any]) -> None:
    """parity: tools, attempts with rewards, classes in signatures, histories, interpreters, embedders."""
    dspy, dspex_ = both(f"agents:{what}", how, **inputs)
    assert dspy.error is None, dspy.message
    if what in _ENDINGS:
        assert all(words in str(dspy.outcome) for words in (*_ENDINGS[what], "Completed.")), dspy.outcome
    assert dspex_.outcome == dspy.outcome, dspex_.message
    assert dspex_.sent == dspy.sent
