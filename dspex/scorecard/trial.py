"""Run one trial: `python -m dspex.scorecard.trial PEER CASE SECONDS` prints a JSON object.

This process is the subreaper of all that it starts: whatever the host or its pool leaves behind becomes its child, can
be counted, and is killed in the end. So a peer that hangs or leaks does not harm the next trial.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dspex_worker.lifeline import become_subreaper
from dspex_worker.memory.process_stat import stat_of
from dspex_worker.memory.procfs import descendants

from .cases import CASES, Ending, Facts
from .host import REPORT

EXIT_PATIENCE = 5.0
ORPHAN_PATIENCE = 1.0
SWEEP_PATIENCE = 2.0
TRACKER = b"resource_tracker"  # unlinks the named semaphores of a pool that has ended, and ends by itself
CODE = "from dspex.scorecard.host import main; main()"


def main() -> None:
    """Run it, sweep, print; a host that has not reported after so many seconds is taken for hung."""
    peer, name, limit = sys.argv[1:]
    become_subreaper()
    with tempfile.TemporaryDirectory(prefix="dspex-scorecard-") as folder:
        try:
            found = run(peer, name, Path(folder), float(limit))
        finally:
            sweep()
    print(json.dumps(found), flush=True)


def run(peer: str, name: str, folder: Path, limit: float) -> dict[str, Any]:
    """Return {"facts": ...}, {"hung": seconds}, or {"broken": why there are no facts}."""
    with (folder / "stderr").open("wb") as errors:
        command = [sys.executable, "-c", CODE, peer, name, str(folder)]
        host = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
    try:
        report = _wait_for_report(host, folder / REPORT, limit)
        if "facts" in report:
            report["facts"] |= _seen_from_outside(host, CASES[name].ending, report["at"])
        if "broken" in report:
            report["stderr"] = (folder / "stderr").read_text(errors="replace")[-2000:]
        return report
    finally:
        host.kill()
        host.wait()


def sweep() -> None:
    """End every descendant, those last that clean up after the others."""
    for is_last in (False, True):
        deadline = time.monotonic() + SWEEP_PATIENCE
        while found := [pid for pid in _living() if is_last or not _is_tracker(pid)]:
            for pid in found:
                if not is_last or time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if time.monotonic() > 2 * SWEEP_PATIENCE + deadline:
                raise RuntimeError(f"processes that cannot be killed: {found}")
            time.sleep(0.002)


def _wait_for_report(host: subprocess.Popen[bytes], path: Path, limit: float) -> dict[str, Any]:
    _until(lambda: path.exists() or host.poll() is not None, limit)
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    if host.poll() is None:
        return {"hung": limit}
    return {"broken": f"the host process ended with status {host.returncode}"}


def _seen_from_outside(host: subprocess.Popen[bytes], ending: Ending, reported_at: float) -> Facts:
    if ending is Ending.KILLED:
        host.kill()
        host.wait()
        return _leavings(time.monotonic())
    if ending is Ending.EXITS:
        if not _until(lambda: host.poll() is not None, EXIT_PATIENCE):
            return {"exit_s": None}
        ended = time.monotonic()
        return {"exit_s": ended - reported_at} | _leavings(ended)
    return {}


def _leavings(since: float) -> Facts:
    """Return how many processes the host left, and when they had gone by themselves."""
    if _until(lambda: not _living(), ORPHAN_PATIENCE):
        return {"left": 0, "gone_s": time.monotonic() - since}
    return {"left": len(_living())}


def _living() -> list[int]:
    """Return all descendants but those that only wait to be reaped."""
    return [pid for pid in descendants(os.getpid()) if not _has_ended(pid)]


def _has_ended(pid: int) -> bool:
    try:
        return stat_of(pid).has_ended
    except OSError:
        return True


def _is_tracker(pid: int) -> bool:
    try:
        return TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _until(is_so: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


if __name__ == "__main__":
    main()
