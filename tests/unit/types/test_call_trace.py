"""Unit: a saved trace has the form that viewers of Chrome's trace events read, and no values unless asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspex
from dspex.testing import FakeLM
from dspex.types.call_trace import Trace

SECRET = "what nobody asked to see"


def saved(trace: Trace, path: Path, **how: Any) -> list[dict[str, Any]]:
    """The complete events of a file, checked against Chrome's trace event format."""
    trace.save(path, **how)
    document = json.loads(path.read_text())
    assert set(document) == {"traceEvents", "displayTimeUnit"} and document["displayTimeUnit"] in ("ms", "ns")
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert [event["ph"] for event in document["traceEvents"]] == ["M"] + ["X"] * len(events)
    for event in events:
        assert isinstance(event["name"], str) and isinstance(event["args"], dict)
        assert all(isinstance(event[name], int) for name in ("pid", "tid"))
        assert event["ts"] >= 0 and event["dur"] >= 0
    for one in events:  # on a row, events stand inside or beside each other
        for other in events:
            if one is not other and one["tid"] == other["tid"]:
                (a, b), (c, d) = sorted((each["ts"], each["ts"] + each["dur"]) for each in (one, other))
                assert c >= b - 0.01 or d <= b + 0.01 or a == c
    return events


def test_a_predictions_trace(tmp_path: Path) -> None:
    with FakeLM(by_field={"answer": SECRET}) as lm:
        out = dspex.predictor("chain_of_thought", "question -> answer", lm=lm, trace=True)(question=SECRET)
    (event,) = saved(out.trace, tmp_path / "trace.json")
    assert event["name"] == "predict" and event["dur"] > 0 and event["ts"] == 0
    assert event["args"]["tokens of openai/fake"]["prompt_tokens"] > 0
    assert SECRET not in (tmp_path / "trace.json").read_text()
    (event,) = saved(out.trace, tmp_path / "trace.json", values=True)
    assert event["args"]["inputs"] == {"question": SECRET} and SECRET in event["args"]["outputs"]["answer"]
    assert isinstance(out.trace, tuple) and len(out.trace) == 1


def test_a_pipelines_trace_has_its_steps_also_those_that_ran_at_once(tmp_path: Path) -> None:
    def first(x: int) -> dict[str, int]:
        return {"a": x}

    def left(a: int) -> dict[str, int]:
        return {"b": a}

    def right(a: int) -> dict[str, int]:
        return {"c": a}

    result = dspex.pipeline([first, dspex.parallel([left, right], name="both")]).run({"x": 1})
    events = saved(result.trace, tmp_path / "trace.json")
    at = {event["name"]: event for event in events}
    assert set(at) == {"first", "both", "left", "right"}
    end = at["both"]["ts"] + at["both"]["dur"]
    for name in ("left", "right"):
        assert at["both"]["ts"] - 1000 <= at[name]["ts"] and at[name]["ts"] + at[name]["dur"] <= end + 1000
    assert at["first"]["ts"] == 0


def test_steps_that_overlap_are_on_rows_of_their_own_and_those_of_unknown_begin_follow(tmp_path: Path) -> None:
    def step(name: str, seconds: float, began: float = 0.0) -> dspex.TraceStep:
        return dspex.TraceStep(name, {}, {}, seconds=seconds, began=began)

    events = saved(Trace([step("a", 2.0, 100.0), step("b", 2.0, 101.0), step("c", 0.5, 100.5)]), tmp_path / "t.json")
    assert [(event["name"], event["tid"], event["ts"]) for event in events] == [
        ("a", 1, 0.0),
        ("c", 1, 0.5e6),
        ("b", 2, 1e6),
    ]
    events = saved(Trace([step("a", 1.0), step("b", 1.0)]), tmp_path / "t.json")
    assert [event["ts"] for event in events] == [0.0, 1e6]
    assert saved(Trace(), tmp_path / "t.json") == []
