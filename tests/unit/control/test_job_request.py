"""Unit: what a client may ask for an optimization, as its own side makes it and as the service reads it."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.control.job_request import job_request, read_job_request
from dspex.errors import InvalidInput, UnknownName
from dspex.programs.optimization.optimizer_options import PLAIN_OPTIONS

ROWS = [{"question": "q", "answer": "a"}]
GOOD: dict[str, Any] = {"program": "a -> b", "trainset": ROWS, "metric": "f1", "optimizer": "copro"}


def test_what_a_client_asks_is_what_the_service_reads() -> None:
    """unit"""
    how: Any = {"options": {"depth": 2, "auto": None}, "budget": {"usd": 1.5}, "timeout": 5, "inputs": ["question"]}
    fields = job_request("a -> b", ROWS, metric="f1", optimizer="copro", valset=ROWS, lm="cheap", **how)
    read = read_job_request(fields, PLAIN_OPTIONS)
    assert (read.program, read.trainset, read.valset, read.metric) == ("a -> b", ROWS, ROWS, "f1")
    assert (read.options, read.budget, read.timeout, read.inputs) == (
        {"depth": 2, "auto": None},
        {"usd": 1.5},
        5.0,
        ["question"],
    )
    assert (read.lm, read.prompt_lm, read.kind, read.init) == ("cheap", None, None, {})


@pytest.mark.parametrize(
    "given",
    [
        {"program": None}, {"program": ["a"]}, {"metric": 5}, {"metric": {"import": "os:system"}}, {"optimizer": None},
        {"trainset": None}, {"trainset": {"a": 1}}, {"trainset": [1]}, {"valset": "rows"}, {"valset": [None]},
        {"options": []}, {"options": {1: 2}}, {"options": {"depth": [1]}}, {"options": {"seed": b"1"}}, {"init": "x"},
        {"inputs": [1]}, {"lm": 5}, {"lm": {"model": "x"}}, {"prompt_lm": ["x"]}, {"timeout": -1}, {"timeout": "5"},
        {"timeout": float("nan")}, {"kind": 1}, {"signature": {}}, {"budget": 5},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_another_type_is_refused(given: dict[str, Any]) -> None:
    """unit: nothing of a request is believed."""
    with pytest.raises(InvalidInput):
        read_job_request({**GOOD, **given}, PLAIN_OPTIONS)


@pytest.mark.parametrize(
    "name", ["log_dir", "teacher", "teacher_settings", "gepa_kwargs", "lm", "component_selector", "x"]
)
def test_options_that_name_files_code_or_models_are_refused(name: str) -> None:
    """unit: whatever their value is."""
    assert name not in PLAIN_OPTIONS and {"auto", "k", "strategy"} & PLAIN_OPTIONS == {"auto", "k"}
    with pytest.raises(UnknownName, match=name):
        read_job_request({**GOOD, "options": {name: "x"}}, PLAIN_OPTIONS)


def test_a_client_learns_at_once_what_it_cannot_send() -> None:
    """unit"""
    for program, metric in ((len, "f1"), ("a -> b", len), (None, None)):
        with pytest.raises(InvalidInput, match="imports name"):
            job_request(program, ROWS, metric=metric, optimizer="copro", valset=None)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="budget"):
        job_request("a -> b", ROWS, metric="f1", optimizer="copro", valset=None, budgte={})  # type: ignore[call-arg]
