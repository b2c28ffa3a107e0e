"""Check the settings: whether they can be read, and whether workers can be made from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

from ..config import Config, load
from ..errors import DspexError, VirtualenvMissing
from .check_result import Check

IMPORT_PATIENCE = 120.0  # seconds that DSPy's import may take on a cold disk

_WARM_UP = """
import json, os, time
began = time.monotonic()
import dspy
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
print(json.dumps({"version": dspy.__version__, "threads": threads, "seconds": time.monotonic() - began}))
"""


def check_settings(source: str | None) -> Iterator[Check]:
    own = source or os.environ.get("DSPEX_CONFIG") or None
    try:
        config = load(own)
    except (DspexError, ValueError) as error:
        yield Check("settings", "fail", str(error), "Correct it; docs/reference/settings.md lists every key.")
        return
    pools = ", ".join(f"{pool.name} ({pool.size} x {pool.concurrency}, {pool.bridge})" for pool in config.pools)
    yield Check("settings", "ok", f"{config.source}: {pools}")
    yield from _interpreters(config)


def _interpreters(config: Config) -> Iterator[Check]:
    """A pool may name another virtualenv's interpreter: it must have the worker package."""
    for pool in config.pools:
        if (virtualenv := pool.virtualenv) is not None:
            try:
                virtualenv.require(pool.name, "" if config.source == "defaults" else config.source)
            except VirtualenvMissing as error:
                yield Check(f"virtualenv of pool {pool.name}", "fail", f"{error.path} is not there", error.command)
                continue
            except DspexError as error:
                yield Check(f"virtualenv of pool {pool.name}", "fail", str(error), "Make it private.")
                continue
        if pool.interpreter == sys.executable:
            continue
        command = [pool.interpreter, "-c", "import dspex_worker, msgpack"]
        name = f"interpreter of pool {pool.name}"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30.0, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Check(name, "fail", f"{pool.interpreter}: {error}", "Name an interpreter that exists.")
            continue
        last = done.stderr.strip().rpartition("\n")[2]
        if done.returncode:
            yield Check(name, "fail", f"{pool.interpreter}: {last}", f"{pool.interpreter} -m pip install dspex-worker")
        else:
            yield Check(name, "ok", pool.interpreter)


def check_fork_server() -> Check:
    """Import DSPy in a child, as a pool's fork server does, and count its threads: it may fork with one only."""
    from ..pools.processes.forkserver_process import worker_environment

    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _WARM_UP],
            capture_output=True,
            text=True,
            timeout=IMPORT_PATIENCE,
            env=worker_environment({}),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check("fork server", "fail", f"importing dspy took over {IMPORT_PATIENCE:g} s", "Look at the disk.")
    except OSError as error:
        return Check("fork server", "fail", f"{sys.executable}: {error}", "Free memory or processes, and try again.")
    try:
        facts = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        return Check(
            "fork server", "fail", f"dspy cannot be imported: {last}", "Reinstall it; try `python -c 'import dspy'`."
        )
    detail = f"dspy {facts['version']} imported in {facts['seconds']:.1f} s, {facts['threads']} thread(s)"
    if facts["threads"] != 1:
        return Check("fork server", "warn", detail, "Workers are started afresh instead of forked: slower, but safe.")
    return Check("fork server", "ok", f"{detail}: workers are forked from it")
