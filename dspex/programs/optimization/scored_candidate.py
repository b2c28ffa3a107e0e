"""`ScoredCandidate`: a program that an optimizer tried, with its scores; and which of many is the best. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import ProtocolError

OWN_KINDS = ("baseline", "result")  # evaluations that the job makes, not the optimizer
KINDS = (*OWN_KINDS, "full", "minibatch")
VALIDATION = "val"


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate: on which examples it was scored, what each gave, and its state.

    `kind` is "baseline" (the program as it was given), "full" (scored on every example of a set), "minibatch" (on
    some), or "result" (what the optimizer returned). `of_set` is "val", "train", or "" where the examples are of
    neither. Scores are in percent for all, and as the metric gives them for each of `rows`, which name an example as
    (list, place).
    """

    number: int
    kind: str
    of_set: str
    score: float
    scores: Sequence[float]
    rows: Sequence[tuple[str, int] | None]
    seconds: float
    digest: str  # of the state
    state: Mapping[str, Any] | None = field(repr=False)  # None of one that no plain data describes
    requests: int = 0  # that were paid since the candidate before
    cost: float = 0.0  # USD

    @classmethod
    def of(cls, told: Mapping[str, Any], states: dict[str, Mapping[str, Any]]) -> ScoredCandidate:
        """Return the candidate that a worker or a journal tells; `states` are those that were told, by digest.

        Raises:
            ProtocolError: it is none.
        """
        try:
            state, digest = told.get("state"), str(told["digest"])
            if state is not None:
                states.setdefault(digest, dict(state))
            made = cls(
                int(told["number"]),
                str(told["kind"]),
                str(told["set"]),
                float(told["score"]),
                tuple(float(score) for score in told["scores"]),
                tuple(None if row is None else (str(row[0]), int(row[1])) for row in told["rows"]),
                float(told["seconds"]),
                digest,
                states.get(digest),
                int(told.get("requests", 0)),
                float(told.get("cost", 0.0)),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ProtocolError(f"A worker told of a candidate that cannot be: {error!r}.") from error
        if made.kind not in KINDS or len(made.scores) != len(made.rows):
            raise ProtocolError(f"A worker told of a candidate that cannot be: {made!r}.")
        return made

    def told(self, *, with_state: bool) -> dict[str, Any]:
        """Return it as plain data, for a journal."""
        told: dict[str, Any] = {
            "number": self.number,
            "kind": self.kind,
            "set": self.of_set,
            "score": self.score,
            "scores": list(self.scores),
            "rows": [None if row is None else list(row) for row in self.rows],
            "seconds": self.seconds,
            "digest": self.digest,
            "requests": self.requests,
            "cost": self.cost,
        }
        return told | ({"state": self.state} if with_state else {})

    def is_same(self, other: ScoredCandidate) -> bool:
        """Whether another run came to the same candidate with the same scores."""
        ours = (self.kind, self.of_set, self.digest, self.score, self.scores, self.rows)
        return ours == (other.kind, other.of_set, other.digest, other.score, other.scores, other.rows)

    @property
    def parts(self) -> dict[str, Mapping[str, Any]]:
        """The states of its predictors, by their names ("self" of a program that is one)."""
        state = self.state or {}
        if "signature" in state and "demos" in state:
            return {"self": state}
        return {name: part for name, part in state.items() if isinstance(part, Mapping) and "demos" in part}

    def trial(self, number: int) -> dict[str, Any]:
        """Return it as an entry of `Optimized.trials`."""
        parts = self.parts
        return {
            "trial": number,
            "kind": self.kind,
            "set": self.of_set,
            "score": self.score,
            "examples": len(self.rows),
            "scores": list(self.scores),
            "rows": [None if row is None else list(row) for row in self.rows],
            "instructions": {name: part.get("signature", {}).get("instructions", "") for name, part in parts.items()},
            "demos": {name: list(part["demos"]) for name, part in parts.items()},
            "fields": {name: list(part.get("signature", {}).get("fields", ())) for name, part in parts.items()},
            "seconds": self.seconds,
            "requests": self.requests,
            "cost": self.cost,
        }


def trials_of(candidates: Sequence[ScoredCandidate]) -> list[dict[str, Any]]:
    """Return the candidates as `Optimized.trials`: the baseline is number 0, the optimizer's own count from 1."""
    return [candidate.trial(number) for number, candidate in enumerate(candidates)]


def best_candidate(candidates: Sequence[ScoredCandidate]) -> ScoredCandidate | None:
    """Return the best so far, of those with a state; the earlier of equals.

    Full evaluations are compared with those on the same set: the optimizer's, with the baseline where that was scored
    there too. Before there is one, a minibatch's candidate counts if it did better than the baseline on its very
    examples.
    """
    usable = [candidate for candidate in candidates if candidate.state is not None]
    baseline = next((candidate for candidate in usable if candidate.kind == "baseline"), None)
    full = [candidate for candidate in usable if candidate.kind in ("full", "result")]
    if full:
        of_set = full[0].of_set
        group = [candidate for candidate in full if candidate.of_set == of_set]
        if baseline is not None and of_set == VALIDATION:
            group.insert(0, baseline)
        return max(group, key=lambda candidate: candidate.score)
    if baseline is None:
        return max(usable, key=lambda candidate: candidate.score, default=None)
    gains = [(_gain(candidate, baseline), candidate) for candidate in usable if candidate.kind == "minibatch"]
    gain, best = max(gains, key=lambda pair: pair[0], default=(0.0, baseline))
    return best if gain > 0 else baseline


def _gain(candidate: ScoredCandidate, baseline: ScoredCandidate) -> float:
    """Return by how much its mean is over the baseline's on the same examples; minus infinity if that is not known."""
    known = dict(zip(baseline.rows, baseline.scores, strict=True))
    if not candidate.rows or any(row is None or row not in known for row in candidate.rows):
        return float("-inf")
    return sum(score - known[row] for score, row in zip(candidate.scores, candidate.rows, strict=True)) / len(
        candidate.rows
    )
