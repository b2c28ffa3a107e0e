"""Unit: programs are made by kind, then signature; a call that lacks one is told the right one."""

from __future__ import annotations

from typing import Any

import pytest

import dspex
from dspex.errors import SettingsError


class QA(dspex.Signature):
    """Answer."""

    question: str = dspex.InputField()
    answer: str = dspex.OutputField()


@pytest.mark.parametrize(
    ("arguments", "right", "key"),
    [
        (("question -> answer",), "dspex.predictor('predict', 'question -> answer')", "kind"),
        ((QA,), "dspex.predictor('predict', QA)", "kind"),
        (("chain_of_thought",), "dspex.predictor('chain_of_thought', 'question -> answer')", "what"),
        (("question -> answer", "predict"), "dspex.predictor('predict', 'question -> answer')", "kind"),
        ((QA, "predict"), "dspex.predictor('predict', QA)", "kind"),
    ],
)
def test_a_predictor_without_a_kind_or_a_signature_is_told_the_right_call(
    arguments: tuple[Any, ...], right: str, key: str
) -> None:
    """unit"""
    with pytest.raises(SettingsError) as caught:
        dspex.predictor(*arguments)
    assert right in str(caught.value) and caught.value.key == key


def test_a_keyword_signature_is_taken_too() -> None:
    """unit"""
    assert dspex.predictor("predict", what=QA).signature == QA
