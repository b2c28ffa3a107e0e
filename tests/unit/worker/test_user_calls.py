"""Unit: what metrics, rewards, checks and retrievers of every shape are called with."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import SettingsError
from dspex_worker.user_calls import Mismatch, metric_parameters, require_arguments

E, P, T, N, PT = "example", "prediction", ["trace"], "pred_name", ["pred_trace"]
SCORING, COLLECTING, IN_GEPA = (E, P), (E, P, T), (E, P, T, N, PT)


def _called(metric: Any, given: tuple[Any, ...]) -> Any:
    placed, named = metric_parameters(metric).arguments(given)
    return metric(*placed, **named)


class Judge:
    def __call__(self, gold: Any, pred: Any, trace: Any = None, strict: bool = True) -> Any:
        return gold, pred, trace, strict

    def method(self, gold: Any, pred: Any, frac: float = 0.5) -> Any:
        return gold, pred, frac


class Moduled:
    """Called like a dspy.Module: what it takes is in its `forward`."""

    def forward(self, example: Any, pred: Any, trace: Any = None) -> Any:
        return example, pred, trace

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)


def with_threshold(example: Any, pred: Any, trace: Any = None, threshold: float = 0.5) -> Any:
    return example, pred, trace, threshold


def for_gepa(gold: Any, pred: Any, trace: Any, pred_name: Any, pred_trace: Any) -> Any:
    return gold, pred, trace, pred_name, pred_trace


def named_alone(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None) -> Any:
    return gold, pred, trace, pred_name


def own_third(gold: Any, pred: Any, k: int = 3, trace: Any = None) -> Any:
    return gold, pred, k, trace


def own_five(gold: Any, pred: Any, trace: Any = None, frac: float = 1.0, strict: bool = True) -> Any:
    return gold, pred, trace, frac, strict


def by_keyword(gold: Any, pred: Any, *, trace: Any = "none", pred_name: Any = "none") -> Any:
    return gold, pred, trace, pred_name


def any_number(*args: Any) -> Any:
    return args


def keywords_too(gold: Any, pred: Any, **more: Any) -> Any:
    return gold, pred, more


@pytest.mark.parametrize(
    ("metric", "scoring", "collecting", "in_gepa"),
    [
        (lambda a, b: (a, b), (E, P), (E, P), (E, P)),
        (with_threshold, (E, P, None, 0.5), (E, P, T, 0.5), (E, P, T, 0.5)),
        (functools.partial(with_threshold, threshold=0.9), (E, P, None, 0.9), (E, P, T, 0.9), (E, P, T, 0.9)),
        (Judge(), (E, P, None, True), (E, P, T, True), (E, P, T, True)),
        (Judge().method, (E, P, 0.5), (E, P, 0.5), (E, P, 0.5)),
        (Moduled(), (E, P, None), (E, P, T), (E, P, T)),
        (for_gepa, (E, P, None, None, None), (E, P, T, None, None), (E, P, T, N, PT)),
        (named_alone, (E, P, None, None), (E, P, T, None), (E, P, T, N)),
        (own_third, (E, P, 3, None), (E, P, 3, T), (E, P, 3, T)),
        (own_five, (E, P, None, 1.0, True), (E, P, T, 1.0, True), (E, P, T, 1.0, True)),
        (by_keyword, (E, P, "none", "none"), (E, P, T, "none"), (E, P, T, N)),
        (any_number, SCORING, COLLECTING, IN_GEPA),
        (keywords_too, (E, P, {}), (E, P, {}), (E, P, {})),
        (lambda a, b, t: (a, b, t), (E, P, None), (E, P, T), (E, P, T)),
    ],
)
def test_a_metric_gets_what_dspy_gives_and_keeps_its_own(
    metric: Any, scoring: Any, collecting: Any, in_gepa: Any
) -> None:
    """unit: while scoring, while demonstrations are collected, and in GEPA."""
    assert _called(metric, SCORING) == scoring
    assert _called(metric, COLLECTING) == collecting
    assert _called(metric, IN_GEPA) == in_gepa


def _four(a: Any, b: Any, trace: Any, mine: Any) -> float:
    return 1.0


async def _late(a: Any, b: Any) -> float:
    return 1.0


def _some(a: Any, b: Any) -> Iterator[float]:
    yield 1.0


async def _late_some(a: Any, b: Any) -> AsyncIterator[float]:
    yield 1.0


@pytest.mark.parametrize(
    "metric",
    [
        lambda a: 1,
        lambda: 1,
        _four,
        lambda *, example, pred: 1,
        lambda a, b, *, mine: 1,
        _some,
        _late_some,
        Judge,
        3,
        None,
    ],
)
def test_what_cannot_be_called_as_a_metric_is_refused(metric: Any) -> None:
    """unit: with a Mismatch that is raised before anything is called."""
    with pytest.raises(Mismatch):
        metric_parameters(metric)


def test_a_function_that_says_nothing_gets_what_was_given() -> None:
    """unit: some functions written in C have no signature"""
    assert metric_parameters(max).arguments(COLLECTING) == ([E, P, T], {})
    require_arguments(max, "reward", "arguments", "prediction")


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: dspex.best_of_n("q -> a", reward_fn=lambda inputs: 1.0), "reward_fn"),
        (lambda: dspex.refine("q -> a", reward_fn=_late), "reward_fn"),
        (lambda: dspex.assertions("q -> a", [lambda: True]), "checks"),
        (lambda: dspex.rag(lambda query: [], "q -> a"), "retriever"),
        (lambda: dspex.python("dspy.MIPROv2", signature="q -> a", trainset=[{"q": 1}], metric=_four), "metric"),
    ],
)
def test_functions_of_the_hosts_are_refused_when_the_program_is_made(make: Any, key: str) -> None:
    """unit: not after the first answer was paid."""
    with pytest.raises(SettingsError) as refused:
        make()
    assert refused.value.key == key
