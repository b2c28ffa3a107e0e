"""Process: the example on real data: its set is whole and says where it is from, and it runs as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dspex
from dspex.testing import FakeLM
from tests.support.paths import EXAMPLES

ZOO = EXAMPLES / "zoo"
WITHIN = 110  # seconds, on a machine that is busy


def rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in (ZOO / "zoo.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_set_is_whole_and_says_where_it_is_from() -> None:
    """contract: 101 animals of seven kinds, as the origin counts them; the license is named."""
    counts = Counter(row["kind"] for row in rows())
    assert counts == {
        "mammal": 41, "bird": 20, "fish": 13, "invertebrate": 10, "insect": 8, "reptile": 5, "amphibian": 4,
    }  # fmt: skip
    assert all(set(row) == {"animal", "traits", "kind"} and all(row.values()) for row in rows())
    told = (ZOO / "ORIGIN.md").read_text(encoding="utf-8")
    assert "Forsyth" in told and "CC BY 4.0" in told and "What was changed" in told


def test_it_optimizes_and_checks_that_both_routes_answer_the_same(tmp_path: Path) -> None:
    """process: with a scripted model that is right about what has feathers, fins or milk."""

    def kind(request: Any) -> str:
        traits = request.inputs["traits"]
        return next((name for name, sign in (("bird", "feathers"), ("fish", "fins")) if sign in traits), "mammal")

    with FakeLM(by_field={"kind": kind, "new_instruction": "Look at the traits."}) as lm:
        env = os.environ | {
            "DSPEX_LM": lm.model, "OPENAI_BASE_URL": lm.api_base, "OPENAI_API_KEY": lm.api_key,
        }  # fmt: skip
        command = [sys.executable, str(ZOO / "run.py"), "--optimizer", "gepa", "--folder", str(tmp_path)]
        subprocess.run(command, env=env, check=True, timeout=WITHIN, capture_output=True, cwd=tmp_path)
    found = json.loads((tmp_path / "gepa-figures.json").read_text())
    assert (found["examples"], found["same_answers"]) == (101, 101)
    assert found["routes"] == [["native"], ["python"]] and found["native_score"] == found["worker_score"] > 60
    assert "On 40 examples" in found["held_out"] and found["requests"] > 60
    assert "Held-out examples one by one" in (tmp_path / "gepa.html").read_text(encoding="utf-8")
    assert dspex.load(tmp_path / "gepa.json", lm="openai/none").is_worse is False
