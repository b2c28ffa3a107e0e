"""`TriedCandidates`: what a job's optimizer has tried, over the workers that it had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .job_budget import JobAccount
from .scored_candidate import ScoredCandidate


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate that a worker told of, and how it stands to what is known."""

    candidate: ScoredCandidate
    place: int
    is_known: bool  # an earlier worker had come to it
    is_other: bool  # an earlier worker had come to another here: what it found from here on is void
    has_new_state: bool


class TriedCandidates:
    """The candidates of the worker that has the job, and those that earlier ones had found."""

    def __init__(self, told: Iterable[Mapping[str, Any]], account: JobAccount) -> None:
        self._account = account
        self._states: dict[str, Mapping[str, Any]] = {}
        self._known = [ScoredCandidate.of(one, self._states) for one in told]  # of earlier workers
        self.now: list[ScoredCandidate] = []  # of this worker, as far as it is
        # Requests and dollars when the last new candidate was scored; those since are the next one's.
        self._counted = (sum(one.requests for one in self._known), sum(one.cost for one in self._known))

    @property
    def all(self) -> list[ScoredCandidate]:
        """This worker's, and what an earlier one had found beyond them."""
        return [*self.now, *self._known[len(self.now) :]]

    def take(self, told: Mapping[str, Any]) -> Tried:
        """Add what a worker tells; its cost is what was spent since the candidate before.

        Raises:
            ProtocolError: it is none.
        """
        account, before, place = self._account, self._counted, len(self.now)
        spent = {"requests": account.requests - before[0], "cost": account.cost_usd - before[1]}
        candidate = ScoredCandidate.of({**told, **spent}, self._states)
        earlier = self._known[place] if place < len(self._known) else None
        if earlier is not None and earlier.is_same(candidate):
            self.now.append(earlier)  # with what it cost when it was paid
            return Tried(earlier, place, is_known=True, is_other=False, has_new_state=False)
        if earlier is not None:
            del self._known[place:]
        self._counted = (account.requests, account.cost_usd)
        is_new = all(candidate.digest != one.digest for one in self.now)
        self.now.append(candidate)
        return Tried(candidate, place, is_known=False, is_other=earlier is not None, has_new_state=is_new)

    def begin_anew(self) -> int:
        """Let another worker go on; return how many candidates are known."""
        self._known, self.now = self.all, []
        return len(self._known)
