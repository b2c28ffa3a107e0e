"""Metrics that DSPy, workers and the host's evaluations all call: one text, scored alike by each."""

from __future__ import annotations

from typing import Any


def exact(example: Any, pred: Any, trace: Any = None) -> bool:
    return bool(example.answer == pred.answer)


def with_own(example: Any, pred: Any, trace: Any = None, share: float = 0.5) -> float:
    """A fourth parameter of its own."""
    return (0.75 if example.answer == pred.answer else 0.25) if share == 0.5 else 0.0


def failing(example: Any, pred: Any, trace: Any = None) -> bool:
    if example["question"].endswith("3"):
        raise ValueError("no")
    return exact(example, pred)


def idiomatic(example: Any, pred: Any, trace: Any = None) -> float:
    """As DSPy's pages write them."""
    assert "question" in example.inputs() and "answer" in example.labels()
    assert set(example.toDict()) >= {"question", "answer"} and set(pred.toDict()) == {"answer"}
    if trace is not None:
        texts = [*(outputs.answer for *_, outputs in trace), example.question]
        return float(max(map(len, texts)) < 50 and example.answer == pred.answer)
    return sum(word in pred.answer.split() for word in example.answer.split()) / len(example.answer.split())


def labels_are_texts(example: Any, pred: Any, trace: Any = None) -> bool:
    """A label that the data set has as text stays text, whatever type the signature gives the field."""
    return type(example.when) is str and str(pred.when) == example.when
