"""The checks of `dspex doctor`. Each tries the thing itself where it can; none changes anything that stays."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..config import Config, load
from ..control import run_files
from ..errors import DspexError

IMPORT_PATIENCE = 120.0  # seconds that DSPy's import may take on a cold disk
LIFELINE_PATIENCE = 2.0

_REQUIRED = ("dspy", "msgpack", "pydantic", "json-repair", "regex", "structlog", "psutil", "jinja2")
_OPTIONAL = {
    "optuna": ("MIPROv2 needs it", "pip install 'dspex[optimizers]'"),
    "xllamacpp": ("the embedded model local/smollm2 needs it", "pip install 'dspex[local-lm]'"),
}
_KEYS = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GROQ_API_KEY",
    "OPENROUTER_API_KEY",
    "DEEPSEEK_API_KEY",
    "XAI_API_KEY",
    "MISTRAL_API_KEY",
    "TOGETHER_API_KEY",
)

_HANG_BY_THE_LIFELINE = """
import os, sys
from dspex_worker import lifeline
lifeline.arm(int(sys.argv[1]))
os.write(1, b"armed")
while True: pass
"""
_WARM_UP = """
import json, os, time
began = time.monotonic()
import dspy
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
print(json.dumps({"version": dspy.__version__, "threads": threads, "seconds": time.monotonic() - began}))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


def checks(source: str | None, *, is_quick: bool) -> Iterator[Check]:
    """Run them, the cheap ones first."""
    yield _python()
    yield _packages()
    yield from _optional()
    yield _platform()
    yield _pidfd()
    yield _lifeline()
    yield from _memory()
    yield _cgroup()
    yield _run_folder()
    yield _supervisors()
    yield _temporary()
    yield _keys()
    yield from _settings(source)
    if not is_quick:
        yield _template()


# -- python and packages --


def _python() -> Check:
    detail = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if platform.python_implementation() != "CPython":
        return Check("python", "fail", detail, "DSPex needs CPython: it forks, and counts on its signal handling.")
    return Check("python", "ok", detail)


def _packages() -> Check:
    found = {name: _version(name) for name in _REQUIRED}
    missing = [name for name, version in found.items() if version is None]
    detail = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if missing:
        return Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    dspy = found["dspy"] or ""
    if not dspy.startswith("3.4."):
        return Check("packages", "fail", detail, f"DSPex speaks DSPy 3.4, not {dspy}: pip install 'dspy>=3.4.1,<3.5'")
    return Check("packages", "ok", detail)


def _optional() -> Iterator[Check]:
    for name, (purpose, remedy) in _OPTIONAL.items():
        version = _version(name)
        if version is None:
            yield Check(name, "warn", f"not installed; {purpose}", remedy)
        else:
            yield Check(name, "ok", version)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# -- the kernel --


def _platform() -> Check:
    detail = f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores"
    if sys.platform != "linux":
        return Check("platform", "fail", detail, "DSPex runs its pools on Linux.")
    return Check("platform", "ok", detail)


def _pidfd() -> Check:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        return Check("pidfd", "fail", f"pidfd_open does not work: {error}", "Linux 5.3 or later is needed; a sandbox "
                     "may forbid the call.")  # fmt: skip
    return Check("pidfd", "ok", "deaths are seen through process descriptors")


def _lifeline() -> Check:
    """Let a busy child hang by a lifeline, cut it, and see how long the child lives."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", _HANG_BY_THE_LIFELINE, str(reading)]
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


def _memory() -> Iterator[Check]:
    from dspex_worker.memory import procfs

    problem = procfs.problem()
    if problem:
        yield Check("memory poll", "fail", problem, "Mount /proc without hidepid: caps need it.")
    else:
        yield Check("memory poll", "ok", "every 10 to 50 ms, the worker's whole tree, from /proc")


def _cgroup() -> Check:
    from dspex_worker.memory import cgroup

    try:
        return Check("cgroup v2", "ok", f"workers get groups below {cgroup.find()}")
    except cgroup.CgroupUnusable as error:
        return Check(
            "cgroup v2", "warn", str(error), "Caps are enforced by polling and rlimit; see docs/guides/operations.md."
        )


# -- folders and sockets --


def _run_folder() -> Check:
    try:
        folder = run_files.runtime_directory()
        run_files.socket_path(directory=folder)
    except DspexError as error:
        return Check("run folder", "fail", str(error), f"Or set {run_files.DIRECTORY_VARIABLE} to a folder of yours.")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("run folder", "fail", f"{folder} is not writable", f"Set {run_files.DIRECTORY_VARIABLE}.")
    return Check("run folder", "ok", f"{folder}, mode 0700")


def _supervisors() -> Check:
    try:
        runs = run_files.living()
    except DspexError:
        return Check("supervisors", "warn", "unknown: the run folder cannot be used", "See above.")
    names = ", ".join(f"{run.name} (pid {run.pid})" for run in runs)
    return Check("supervisors", "ok", f"running: {names}" if names else "none is running")


def _temporary() -> Check:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        return Check("temporary folder", "fail", f"{tempfile.gettempdir()}: {error.strerror}", "Free space, or TMPDIR.")
    return Check("temporary folder", "ok", f"{tempfile.gettempdir()} is writable")


# -- settings --


def _keys() -> Check:
    present = [name for name in _KEYS if os.environ.get(name)]
    if present:
        shown = ", ".join(f"{name} (set, {len(os.environ[name])} characters)" for name in present)
        return Check("keys", "ok", f"{shown}; workers never get them")
    remedy = "Set the variable of your provider, or give api_key= to dspex.LM; local/smollm2 needs none."
    return Check("keys", "warn", "no provider's key is in the environment", remedy)


def _settings(source: str | None) -> Iterator[Check]:
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
        if pool.python == sys.executable:
            continue
        command = [pool.python, "-c", "import dspex_worker, msgpack"]
        name = f"interpreter of pool {pool.name}"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30.0, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Check(name, "fail", f"{pool.python}: {error}", "Name an interpreter that exists.")
            continue
        last = done.stderr.strip().rpartition("\n")[2]
        if done.returncode:
            yield Check(name, "fail", f"{pool.python}: {last}", f"{pool.python} -m pip install dspex-worker")
        else:
            yield Check(name, "ok", pool.python)


def _template() -> Check:
    """Import DSPy in a child, as a pool's template does, and count its threads: only a single-threaded one may fork."""
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
        facts = json.loads(done.stdout.strip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return Check("template", "fail", f"importing dspy took over {IMPORT_PATIENCE:g} s", "Look at the disk.")
    except (OSError, ValueError):
        last = done.stderr.strip().rpartition("\n")[2]
        return Check(
            "template", "fail", f"dspy cannot be imported: {last}", "Reinstall it; try `python -c 'import dspy'`."
        )
    detail = f"dspy {facts['version']} imported in {facts['seconds']:.1f} s, {facts['threads']} thread(s)"
    if facts["threads"] != 1:
        return Check("template", "warn", detail, "Workers are started afresh instead of forked: slower, but safe.")
    return Check("template", "ok", f"{detail}: workers are forked from it")
