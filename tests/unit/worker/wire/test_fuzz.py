"""Unit: mutated frames: 100,000 here; a million by `python -m tests.support.wire.fuzz`."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.paths import ROOT

FRAMES = 100_000


def test_mutated_frames_raise_nothing_but_malformed_and_stay_small() -> None:
    """unit: seed 1, in a process of its own so that its peak memory is its own."""
    command = [sys.executable, "-m", "tests.support.wire.fuzz", "--frames", str(FRAMES), "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = {name: int(count) for name, count in re.findall(r"'(\w+)': (\d+)", done.stdout)}
    assert sum(counts.values()) == FRAMES
    assert all(count > FRAMES // 50 for count in counts.values()), f"the fuzz misses a whole class: {counts}"
    grown = re.search(r"grew by ([\d.]+) MB", done.stdout)
    assert grown is not None and float(grown[1]) <= 64.0, done.stdout
