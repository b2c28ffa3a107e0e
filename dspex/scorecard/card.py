"""Run the scorecard: a few trials for each cell, each trial in a process of its own, one after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UnknownName
from .cases import CASES, Case
from .peers import PEERS, peer_class, version_of
from .scoring import Cell, Mark, score

REPEATS = 5
LIMIT = 60.0  # seconds until a trial's host is taken for hung
TRIAL_PATIENCE = 60.0  # seconds more until a trial that does not end by itself is given up


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Which peers ("module:Class" by their names) and cases to run, and how often."""

    peers: Mapping[str, str] = field(default_factory=lambda: PEERS)
    cases: Sequence[str] = tuple(CASES)
    repeats: int = REPEATS
    limit: float = LIMIT

    @classmethod
    def of(cls, peers: Sequence[str] = (), cases: Sequence[str] = (), repeats: int = REPEATS) -> Scorecard:
        """Return the scorecard of these names; none given means all.

        Raises:
            UnknownName: there is no such peer or case.
        """
        for name in peers:
            if name not in PEERS:
                raise UnknownName("peer", name, PEERS)
        for name in cases:
            if name not in CASES:
                raise UnknownName("case", name, CASES)
        chosen = {name: PEERS[name] for name in peers or PEERS}
        return cls(chosen, tuple(name for name in CASES if name in cases or not cases), repeats)

    def rows(self) -> Iterator[tuple[Case, list[Cell]]]:
        """Run it, and return each case with its cells as soon as it is done."""
        for name in self.cases:
            yield CASES[name], [self._cell(peer, target, CASES[name]) for peer, target in self.peers.items()]

    def versions(self) -> dict[str, str | None]:
        """Return the peers' versions: "" for the standard library, None for those that are not installed."""
        return {peer: version_of(peer_class(target)) for peer, target in self.peers.items()}

    def _cell(self, peer: str, target: str, case: Case) -> Cell:
        adapter = peer_class(target)
        if version_of(adapter) is None:
            return Cell(peer, case.name, Mark.ABSENT, f"not installed: pip install {adapter.distribution}")
        lacking = [adapter.lacks[need] for need in case.needs if need in adapter.lacks]
        if lacking:
            return Cell(peer, case.name, Mark.LACKS, lacking[0])
        trials: list[dict[str, Any]] = []
        while len(trials) < self.repeats and not any("hung" in found for found in trials):
            trials.append(run_trial(target, case.name, self.limit))
        return score(peer, case.name, trials)


def run_trial(target: str, case: str, limit: float = LIMIT) -> dict[str, Any]:
    """Run one trial and return what it found; see `trial.run`."""
    command = [sys.executable, "-m", "dspex.scorecard.trial", target, case, str(limit)]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit + TRIAL_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return {"broken": f"the trial did not end within {time.monotonic() - began:.0f} s"}
    if done.returncode != 0:
        return {"broken": f"the trial ended with {done.returncode}: {done.stderr.strip()[-300:]}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def load() -> float:
    """Return the machine's load over the last minute: other work makes every time worse."""
    return os.getloadavg()[0]
