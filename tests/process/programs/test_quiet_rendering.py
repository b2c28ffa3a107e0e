"""process: rendering what comes before the inputs is no mistake of anybody's, and is not warned of."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import dspex
from dspex.testing import FakeLM


def test_loading_a_program_warns_of_nothing(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """process: DSPy warns of inputs that a call lacks; the prefix of a prompt has none."""
    rows = [{"question": "q", "answer": "a"}]
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with FakeLM(by_field={"answer": "a"}) as lm, dspex.Supervisor(pools=pools) as sup:
        with caplog.at_level(logging.WARNING):
            best = dspex.optimize(
                "question -> answer",
                rows,
                optimizer="labeled",
                k=1,
                metric="exact_match",
                lm=lm.lm,
                supervisor=sup,
                progress=False,
            )
            best.save(tmp_path / "qa.json")
            loaded = dspex.load(tmp_path / "qa.json", lm=lm.lm, supervisor=sup)
            assert loaded(question="q").answer == "a"
        assert "Not all input fields" not in caplog.text
