"""Unit: programs of a user's own modules are made without a worker, and without DSPy."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest

import dspex
from dspex.errors import InvalidInput, SettingsError, SignatureError, UnknownName
from dspex.pools.processes.learned_modules import LEARNED_MOST, LearnedModules
from tests.support.paths import ROOT


def test_it_is_made_without_a_worker_and_without_dspy() -> None:
    """unit: by its name, this process imports neither the module nor DSPy, and starts nothing."""
    code = """
    import sys, threading, dspex
    qa = dspex.module("tests.support.programs.own_programs:MultiHop", hops=3, signature="question -> answer")
    print(repr(qa), qa.inputs, qa.using(timeout=3, idempotent=True).may_repeat)
    loaded = [name for name in ("dspy", "tests.support.programs.own_programs") if name in sys.modules]
    print(loaded, threading.active_count())
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, second = ended.stdout.splitlines()
    assert "own_programs:MultiHop question -> answer" in first and first.endswith("True")
    assert second == "[] 1"


@pytest.mark.parametrize("what", ["MultiHop", "pkg.MultiHop", "pkg:", ":MultiHop", "pkg mod:QA", 7, None, ["pkg:QA"]])
def test_what_names_no_module_is_refused_at_once(what: Any) -> None:
    """unit"""
    for make in (dspex.module, dspex.function):
        with pytest.raises(InvalidInput):
            make(what)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("shop.QA", "'shop:QA'"),
        ("my.shop.QA", "'my.shop:QA'"),
        ("shop.QA.Inner", "'shop:QA.Inner'"),
        ("my.shop.build", "'my.shop:build'"),
        ("chain_of_thought", "dspex.predictor('chain_of_thought'"),
        ("shop", "'package.module:Class'"),
        ("./shop.py", "'package.module:Class'"),
    ],
)
def test_a_name_that_is_no_path_is_told_the_path(written: str, meant: str) -> None:
    """unit"""
    for make in (dspex.module, dspex.function):
        with pytest.raises(InvalidInput) as caught:
            make(written)
        assert meant in str(caught.value) and repr(written) in str(caught.value)


def test_dspys_classes_are_named_with_a_dot_too() -> None:
    """unit: as `dspex.predictor` takes them."""
    assert dspex.module("dspy.ChainOfThought", signature="question -> answer").module == "dspy:ChainOfThought"


def test_its_call_options_are_checked_at_once() -> None:
    """unit"""
    cases: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"signature": "question"}, SignatureError),
        ({"adapter": "yaml"}, UnknownName),
        ({"timeout": "3s"}, SettingsError),
        ({"lm": 7}, SettingsError),
        ({"tools": "search"}, SettingsError),
        ({"supervisor": "here"}, SettingsError),
        ({"idempotent": "yes"}, SettingsError),
    ]
    for options, error in cases:
        with pytest.raises(error):
            dspex.module("pkg.mod:QA", **options)


def test_it_may_not_repeat_unless_it_is_said_to() -> None:
    """unit"""
    qa = dspex.module("pkg.mod:QA")
    assert not qa.may_repeat and dspex.module("pkg.mod:QA", idempotent=True).may_repeat
    assert qa.using(idempotent=True).may_repeat and not dspex.function("pkg.mod:f").may_repeat
    tools: Any = [len]
    assert not dspex.chain_of_thought("question -> answer").using(idempotent=False).may_repeat
    assert not dspex.react("question -> answer", tools=[lambda_free]).may_repeat and tools


def lambda_free(query: str) -> str:
    """Look."""
    return query


def test_modules_that_were_learned_are_bounded_and_given_up_by_version() -> None:
    """unit: what a fork server could not be warmed with is tried again once it has changed."""
    learned = LearnedModules()
    for number in range(LEARNED_MOST + 5):
        learned.learn(f"m{number}", "1")
    assert len(learned.to_warm()) == LEARNED_MOST and learned.is_behind
    learned.served = learned.to_warm()
    assert not learned.is_behind
    learned.learn("m0", "2")
    assert learned.is_behind
    learned.give_up(learned.to_warm())
    assert not learned.is_behind and "m0" not in learned.to_warm() and "m1" in learned.to_warm()
    learned.learn("m0", "3")
    assert learned.is_behind
