"""Unit: which of the candidates so far is the best, and what is no candidate."""

from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import ProtocolError
from dspex.programs.optimization.scored_candidate import ScoredCandidate, best_candidate, trials_of

STATE = {"signature": {"instructions": "Do."}, "demos": [{"question": "q"}]}


def candidate(kind: str, *scores: float, of_set: str = "val", first: int = 0, **changes: Any) -> ScoredCandidate:
    told: dict[str, Any] = {
        "number": 0, "kind": kind, "set": of_set, "score": 100 * sum(scores) / len(scores), "scores": list(scores),
        "rows": [["train", first + place] for place in range(len(scores))], "seconds": 0.1, "digest": "d",
        "state": STATE,
    }  # fmt: skip
    return ScoredCandidate.of(told | changes, {})


BASELINE = candidate("baseline", 1, 0, 1, 0)
CASES: dict[str, tuple[list[ScoredCandidate], int | None]] = {
    "nothing yet": ([], None),
    "the baseline alone": ([BASELINE], 0),
    "a better one": ([BASELINE, candidate("full", 1, 1, 1, 0)], 1),
    "a worse one": ([BASELINE, candidate("full", 0, 0, 1, 0)], 0),
    "the earlier of equals": ([BASELINE, candidate("full", 1, 1, 1, 1), candidate("full", 1, 1, 1, 1)], 1),
    "of the training set: the baseline was not scored there": (
        [BASELINE, candidate("full", 0, 0, 0, 1, of_set="train"), candidate("full", 0, 0, 0, 0, of_set="train")], 1,
    ),
    "a minibatch's 100 is no full score": (
        [BASELINE, candidate("full", 0, 0, 1, 0), candidate("minibatch", 1, 1)], 0,
    ),
    "a minibatch that did better on its own examples": ([BASELINE, candidate("minibatch", 1, 1)], 1),
    "a minibatch of what is easy": ([BASELINE, candidate("minibatch", 1)], 0),
    "the better of minibatches": (
        [BASELINE, candidate("minibatch", 1, 1), candidate("minibatch", 1, first=1), candidate("minibatch", 0)], 2,
    ),
    "a minibatch of examples that the baseline never saw": ([BASELINE, candidate("minibatch", 1, 1, first=9)], 0),
    "one without a state": ([BASELINE, candidate("full", 1, 1, 1, 1, state=None)], 0),
    "the result": ([BASELINE, candidate("full", 1, 1, 1, 0), candidate("result", 1, 1, 1, 1)], 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_best_so_far(case: str) -> None:
    """unit"""
    candidates, place = CASES[case]
    best = best_candidate(candidates)
    assert best is (None if place is None else candidates[place])


def test_a_state_is_told_once() -> None:
    """unit: later candidates name its digest; it goes through a journal and back."""
    states: dict[str, Any] = {}
    told = candidate("full", 1, 0).told(with_state=True)
    first = ScoredCandidate.of(told, states)
    second = ScoredCandidate.of(candidate("full", 0, 1).told(with_state=False), states)
    assert second.state == STATE and first.is_same(ScoredCandidate.of(told, {})) and not first.is_same(second)


def test_trials_say_what_was_tried() -> None:
    """unit: by predictor."""
    two = candidate("full", 1, 0, state={"a": STATE, "b": STATE, "note": 3})
    trials = trials_of([BASELINE, two])
    assert trials[0]["instructions"] == {"self": "Do."} and trials[0]["kind"] == "baseline"
    assert trials[1]["demos"] == {"a": STATE["demos"], "b": STATE["demos"]} and trials[1]["trial"] == 1


@pytest.mark.parametrize(
    "wrong", [{"kind": "odd"}, {"score": "high"}, {"scores": [1]}, {"rows": [["train"], ["train", 1]]}, {"state": 5}]
)
def test_what_is_no_candidate_is_the_workers_fault(wrong: dict[str, Any]) -> None:
    """unit"""
    with pytest.raises(ProtocolError):
        candidate(wrong.get("kind", "full"), 1, 0, **{key: value for key, value in wrong.items() if key != "kind"})
