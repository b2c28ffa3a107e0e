"""Unit: which processes' data limits are raised for the stacks of their threads."""

from __future__ import annotations

import resource
import subprocess

from dspex_worker.memory import rlimits

CAP = 1024 * rlimits.MIB


def test_only_a_limit_of_ours_is_raised_for_stacks() -> None:
    """Collaboration: a child that user code holds to less keeps that, and one without a limit gets none."""
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            before = resource.prlimit(child.pid, resource.RLIMIT_DATA)
            for own in (100 * rlimits.MIB, before[0]):
                resource.prlimit(child.pid, resource.RLIMIT_DATA, (own, before[1]))
                rlimits.grant_stacks(child.pid, CAP, 100)
                assert resource.prlimit(child.pid, resource.RLIMIT_DATA)[0] == own
            resource.prlimit(child.pid, resource.RLIMIT_DATA, (rlimits.data_limit(CAP, 1), before[1]))
            rlimits.grant_stacks(child.pid, CAP, 100)
            assert resource.prlimit(child.pid, resource.RLIMIT_DATA)[0] == rlimits.data_limit(CAP, 100)
        finally:
            child.kill()
