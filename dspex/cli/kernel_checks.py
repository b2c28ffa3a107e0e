"""Check what the kernel offers, by trying it: process descriptors, lifelines, memory limits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator

from .check_result import Check

LIFELINE_PATIENCE = 2.0  # seconds

_HANG_BY_THE_LIFELINE = """
import os, sys
from dspex_worker import lifeline
lifeline.arm(int(sys.argv[1]))
os.write(1, b"armed")
while True: pass
"""


def check_platform() -> Check:
    detail = f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores"
    if sys.platform != "linux":
        return Check("platform", "fail", detail, "DSPex runs its pools on Linux.")
    return Check("platform", "ok", detail)


def check_pidfd() -> Check:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        return Check("pidfd", "fail", f"pidfd_open does not work: {error}", "Linux 5.3 or later is needed; a sandbox "
                     "may forbid the call.")  # fmt: skip
    return Check("pidfd", "ok", "deaths are seen through process descriptors")


def check_lifeline() -> Check:
    """Tie a busy child to a lifeline, cut it, and measure how long the child lives."""
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-c", _HANG_BY_THE_LIFELINE, str(reading)]
    child = subprocess.Popen(command, pass_fds=(reading,), start_new_session=True, stdout=subprocess.PIPE)
    os.close(reading)
    try:
        armed = child.stdout.read(5) if child.stdout else b""
        cut_at = time.monotonic()
        os.close(writing)
        child.wait(timeout=LIFELINE_PATIENCE)
        took = (time.monotonic() - cut_at) * 1000
    except subprocess.TimeoutExpired:
        return Check("lifeline", "fail", "a child whose lifeline was cut lived on", "This kernel or sandbox lacks "
                     "F_SETSIG: workers would outlive a supervisor that is killed.")  # fmt: skip
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()
    if armed != b"armed" or child.returncode != -9:
        return Check("lifeline", "fail", f"the child could not arm it (exit code {child.returncode})", "See its error "
                     "above; workers would outlive a supervisor that is killed.")  # fmt: skip
    return Check("lifeline", "ok", f"the kernel killed a busy child {took:.1f} ms after its lifeline was cut")


# -- memory --


def check_memory() -> Iterator[Check]:
    from dspex_worker.memory import procfs

    problem = procfs.problem()
    if problem:
        yield Check("memory poll", "fail", problem, "Mount /proc without hidepid: caps need it.")
    else:
        yield Check("memory poll", "ok", "every 10 to 50 ms, the worker's whole tree, from /proc")


def check_cgroup() -> Check:
    from dspex_worker.memory import cgroup

    try:
        return Check("cgroup v2", "ok", f"workers get groups below {cgroup.find()}")
    except cgroup.CgroupUnusable as error:
        return Check(
            "cgroup v2", "warn", str(error), "Caps are enforced by polling and rlimit; see docs/guides/operations.md."
        )
