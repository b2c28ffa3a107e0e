"""Process: settings arrive as they were given, from wherever they were given, in the workers too (T10, T15, T76)."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dspex.config import PoolConfig, load
from dspex.errors import CallTimeout, SettingsError, WorkerBootError
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, all_ready, eventually, pids

CPU = min(os.sched_getaffinity(0))

# setting: (as written in TOML, as written in the environment, what it means)
GIVEN: dict[str, tuple[Any, str, Any]] = {
    "size": (7, "7", 7),
    "concurrency": (3, "3", 3),
    "bridge": ("faults", "faults", "faults"),
    "start_method": ("exec", "exec", "exec"),
    "memory_cap": ("3GiB", "3GiB", 3 * 1024**3),
    "frame_limit": ("64MiB", "64MiB", 64 * 1024**2),
    "requirements": (["b", "a==1"], "b,a==1", ("b", "a==1")),
    "affinity": ("hint", "hint", "hint"),
    "queue_limit": (12, "12", 12),
    "call_timeout": ("90s", "90s", 90.0),
    "cancel_grace": ("250ms", "0.25", 0.25),
    "stop_grace": (4, "4", 4.0),
    "teardown_timeout": ("1500ms", "1.5", 1.5),
    "recycle_after_calls": (500, "500", 500),
    "recycle_after_age": ("2h", "2h", 7200.0),
    "recycle_after_memory": ("512MiB", "512MiB", 512 * 1024**2),
    "session_ttl": ("30min", "30min", 1800.0),
    "session_limit": (99, "99", 99),
    "session_drain": ("1min", "60", 60.0),
    "startup_timeout": (33, "33s", 33.0),
    "imports": (["json", "math"], "json,math", ("json", "math")),
    "lms": ("named", "named", "named"),
    "nice": (5, "5", 5),
    "cpus": ([CPU], str(CPU), (CPU,)),
}


def _toml(value: Any) -> str:
    return (
        repr(value)
        if isinstance(value, int | float)
        else str(value).replace("'", '"')
        if isinstance(value, list)
        else f'"{value}"'
    )


@pytest.mark.parametrize("name", GIVEN)
def test_a_setting_means_the_same_wherever_it_is_written(tmp_path: Path, name: str) -> None:
    """unit (T10): an argument, a TOML file and the environment; the last of them wins."""
    in_toml, in_environment, meaning = GIVEN[name]
    file = tmp_path / "dspex.toml"
    file.write_text(f"[pools.dspy]\n{name} = {_toml(in_toml)}\n")
    assert getattr(PoolConfig("dspy", **{name: in_toml}), name) == meaning
    assert getattr(load(file, environ={}).pools[0], name) == meaning
    assert getattr(load(None, environ={f"DSPEX_DSPY_{name.upper()}": in_environment}).pools[0], name) == meaning


def test_every_setting_is_tried_here_or_elsewhere() -> None:
    """unit: a new setting is a new line above."""
    elsewhere = {"name", "python", "restart_budget", "path", "env", "options"}
    assert {field.name for field in dataclasses.fields(PoolConfig)} <= {*GIVEN, *elsewhere, "cgroup"}


def test_no_setting_is_dropped_silently(tmp_path: Path) -> None:
    """unit (T10): a key that nobody knows, or a value of another kind, is an error that names it."""
    file = tmp_path / "dspex.toml"
    for text, named in (
        ("[pools.dspy]\nsizes = 3\n", "sizes"),
        ("[pools.dspy]\nsize = 'many'\n", "pools.dspy.size"),
        ("[pools.dspy]\nmemory_cap = '2 loaves'\n", "pools.dspy.memory_cap"),
        ("[pools.dspy]\ncall_timeout = -1\n", "pools.dspy.call_timeout"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=named) as caught:
            load(file, environ={})
        assert named in str(caught.value.key)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("pools = 3\n", "pools"),
        ("[[pools]]\nsize = 3\n", "pools"),
        ("[pool.dspy]\nsize = 3\n", "pool"),
        ("size = 3\n", "size"),
        ("[pools.f]\nname = 'g'\n", "pools.f.name"),
        ("[pools.f]\nbridge = true\n", "pools.f.bridge"),
        ("[pools.f]\npython = 3\nstart_method = 'exec'\n", "pools.f.python"),
        ("[pools.f]\nimports = {a = 1}\n", "pools.f.imports"),
        ("[pools.f]\nimports = ['']\n", "pools.f.imports"),
        ("[pools.f]\nrestart_budget = [1.9, 30]\n", "pools.f.restart_budget"),
        ("[pools.f]\nrestart_budget = [5, nan]\n", "pools.f.restart_budget"),
        ("[pools.f]\nrestart_budget = [true, 30]\n", "pools.f.restart_budget"),
        ("[pools.f]\nrecycle_after_age = 0\n", "pools.f.recycle_after_age"),
        ("[pools.f]\nenv = {A = 1}\n", "pools.f.env"),
        ("[pools.f]\nnice = -1\n", "pools.f.nice"),
        ("[pools.f]\nnice = 20\n", "pools.f.nice"),
        ("[pools.f]\nnice = true\n", "pools.f.nice"),
        ("[pools.f]\ncpus = []\n", "pools.f.cpus"),
        ("[pools.f]\ncpus = 1\n", "pools.f.cpus"),
        ("[pools.f]\ncpus = [1000000]\n", "pools.f.cpus"),
        ("[pools.f]\nenv = {'A=B' = 'x'}\n", "pools.f.env"),
        ("[pools.f]\noptions = {day = 2026-01-01}\n", "pools.f.options"),
        (f"[pools.f]\noptions = {{text = '{'x' * 40_000}'}}\n", "pools.f.options"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    """unit: nothing is guessed, cut or ignored."""
    file = tmp_path / "dspex.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file, environ={})
    assert caught.value.key == key


def test_a_settings_file_is_utf8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    """unit: another encoding is said to be none, not raised as UnicodeDecodeError."""
    file = tmp_path / "dspex.toml"
    file.write_bytes(b"\xef\xbb\xbf[pools.dspy]\nsize = 3\n")
    assert load(file, environ={}).pools[0].size == 3
    file.write_bytes(b"[pools.dspy]  # caf\xe9\nsize = 3\n")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(file, environ={})


TELLING = """
from dspex_worker.bridge import Bridge
bridge = Bridge("telling")
seen = {}

@bridge.setup
def setup(settings):
    seen.update(settings)

@bridge.command()
def settings(ctx):
    import math, os, sys
    names = ("pool", "worker", "generation", "concurrency", "options", "imports")
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**{name: seen[name] for name in names}, "own": os.environ.get("OWN"), "path": sys.path[0], **threads}
"""


@pytest.mark.parametrize("start_method", ["fork", "exec"])
def test_what_a_pool_is_given_is_what_its_workers_have(supervise: Supervise, tmp_path: Path, start_method: str) -> None:
    """Process (T02, T10, T76): name, slot, concurrency, options, imports, path and env; no library starts threads."""
    script = tmp_path / "telling_bridge.py"
    script.write_text(TELLING)
    options = {"depth": 3, "words": ["a", "b"], "nested": {"k": None}}
    sup = supervise(
        size=2,
        concurrency=5,
        bridge=str(script),
        start_method=start_method,
        options=options,
        imports=("math",),
        path=(str(tmp_path),),
        env={"OWN": "value"},
    )
    told = sup.call("f", "settings")
    assert {name: told[name] for name in ("pool", "concurrency", "options", "imports", "own", "path")} == {
        "pool": "f",
        "concurrency": 5,
        "options": options,
        "imports": ["math"],
        "own": "value",
        "path": str(tmp_path),
    }
    assert told["worker"] in ("f/0", "f/1")
    assert [told[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")] == ["1"] * 3


def test_sixteen_workers_start_together(supervise: Supervise) -> None:
    """Process (T01, T02, T03): start() returns at once, all of them come, each with a pid and a slot of its own."""
    sup = supervise(size=16, wait=False)
    assert sup.stats()["f"]["state"] in ("starting", "ready")
    assert len(set(all_ready(sup, 16))) == 16
    assert sorted(row["worker"] for row in sup.stats()["f"]["workers"]) == sorted(f"f/{n}" for n in range(16))


def test_the_pid_in_stats_is_the_workers_own(supervise: Supervise, tmp_path: Path) -> None:
    """Process (T15): also where the interpreter is a script that replaces itself with another."""
    shim = tmp_path / "python-shim"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    shim.chmod(0o755)
    sup = supervise(size=1, start_method="exec", python=str(shim))
    assert sup.call("f", "ping")["pid"] == pids(sup)[0]


def test_an_interpreter_that_hides_behind_a_parent_is_refused(supervise: Supervise, tmp_path: Path) -> None:
    """Process (T15, T17): a shim that stays as the worker's parent: it could not be killed as one with it."""
    shim = tmp_path / "python-shim"
    shim.write_text(f'#!/bin/sh\n{sys.executable} "$@"\nexit $?\n')
    shim.chmod(0o755)
    with pytest.raises(WorkerBootError) as caught:
        supervise(size=1, start_method="exec", python=str(shim), startup_timeout=20.0)
    assert "group" in str(caught.value) + caught.value.stderr_tail


def test_the_settings_of_two_pools_do_not_mix() -> None:
    """Process (T11): sizes, limits and timeouts are each pool's own, also when one of them is changed."""
    small = PoolConfig("small", bridge="faults", size=1, concurrency=1, queue_limit=1, call_timeout=0.2, stop_grace=0.5)
    large = PoolConfig("large", bridge="faults", size=3, concurrency=4, stop_grace=0.5)
    with Supervisor(pools=[small, large]) as sup:
        sup.wait_ready()
        sup.pool("small").resize(2)
        eventually(lambda: [len(sup.stats()[name]["workers"]) for name in ("small", "large")] == [2, 3])
        assert [sup.stats()[name]["queue_limit"] for name in ("small", "large")] == [1, 1000]
        with pytest.raises(CallTimeout) as caught:
            sup.call("small", "sleep", {"seconds": 5.0})
        assert caught.value.timeout == 0.2
        assert sup.call("large", "sleep", {"seconds": 0.5}) == 0.5
        assert {row["worker"].partition("/")[0] for row in sup.stats()["large"]["workers"]} == {"large"}


def test_threads_that_open_one_session_at_once_share_it(supervise: Supervise) -> None:
    """Process (T52): 16 threads open and write to the same session: one worker, one list, nothing lost or doubled."""
    sup = supervise(size=4)
    all_ready(sup, 4)
    barrier = threading.Barrier(16)

    def join(number: int) -> None:
        barrier.wait(10)
        sup.session("f", "shared-by-threads").call("append", {"value": number})

    for caller in [Caller(join, number) for number in range(16)]:
        caller.outcome()
    with sup.session("f", "shared-by-threads") as session:
        assert sorted(session.call("recall", {"key": "list"})["value"]) == list(range(16))
    assert sup.stats()["f"]["sessions"] == 0
