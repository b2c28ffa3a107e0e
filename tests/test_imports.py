"""Contract: imports point one way and in no circle, names stand for one thing, and the host never loads dspy."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the ground up: a module imports those of its own floor's package, and of the floors below.
HOST_FLOORS = (
    "errors, usage_stats, descriptors, forks, loop_thread, templates, setting_values, html_views, cancel_flag, "
    "terminal_text, log_records, template_limits, unshown_values, virtualenvs, spans",
    "events, config, settings_exposure",
    "lm",
    "types",
    "signatures",
    "adapters, pools",
    "scoped_defaults",
    "defaults",
    "services, control, retrieval, telemetry",
    "programs",
    "pipelines",
    "scorecard, serving",
    "dashboard",
    "cli",
)
POOL_FLOORS = ("state", "processes")  # and everything else of pools above them
PIPELINE_FLOORS = ("drivers", "core", "steps", "pipeline")
PROGRAM_FLOORS = (
    "options, files, examples, native, scores",
    "worker, reports",
    "calling",
    "modules, strategies",
    "saving",
    "factories",
    "evaluation",
    "optimization",
)
WORKER_FLOORS = (
    "wire, types, output_limit, own_imports, stdio, signals, starting, launching, saved_state, user_calls, failure, "
    "exits, __init__, stack_dump, process_title",
    "lifeline, frame_writer, message_reader, control_socket",
    "memory, processor_share",
    "session_state, user_code, error_report, reaping",
    "parent_calls",
    "context",
    "bridge, builtin_commands, output_log",
    "running_call, leader_follower, bridge_loader, teardown",
    "execution, interrupter",
    "runtime",
    "startup",
    "forkserver, __main__",
    "programs",
)
WORKER_PROGRAM_FLOORS = (
    "dspy_parts, package_versions, __init__",
    "dspy_errors",
    "adapter_choice, optimizers, calls",
    "values",
    "code, lms",
    "metrics, observing, retrievers",
    "modules",
    "commands",
    "evaluating, streaming",
    "optimizing",
    "dspy_setup",
)
APART = ("dspex.pools", "dspex.adapters")  # neither knows the other
ASIDE = ("dspex", "dspex.testing")  # the lazy front door, and what users' tests import
SHARED_WITH_WORKERS = tuple(
    f"dspex_worker.{name}"
    for name in (
        "wire",
        "types",
        "lifeline",
        "memory",
        "signals",
        "starting",
        "launching",
        "saved_state",
        "user_calls",
        "output_limit",
        "stack_dump",
        "process_title",
    )
)
SAME_FILE_NAMES = {"__init__.py", "__main__.py"}


def _modules(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        yield ".".join((prefix, *parts)), path


HOST = dict(_modules(ROOT / "dspex", "dspex"))
WORKER = dict(_modules(ROOT / "workers" / "dspex_worker", "dspex_worker"))
ALL = HOST | WORKER


def _imported(name: str, path: Path) -> set[str]:
    """Every module that it imports: at the top, in functions, and for the type checker only."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                found.add(f"{module}.{alias.name}" if f"{module}.{alias.name}" in ALL else module)
    return found - {name}


IMPORTS = {name: _imported(name, path) for name, path in ALL.items()}


def _floor(name: str, root: str, floors: tuple[str, ...]) -> int | None:
    own = name.removeprefix(f"{root}.").split(".")[0] if name != root else "__init__"
    return next((at for at, members in enumerate(floors) if own in members.split(", ")), None)


def _ups(root: str, floors: tuple[str, ...], top: int | None = None) -> list[str]:
    """The imports from a floor to one above it; `top` is the floor of what stands on none."""
    found = []
    for name in ALL:
        if name != root and not name.startswith(f"{root}."):
            continue
        own = _floor(name, root, floors)
        own = top if own is None else own
        for imported in IMPORTS[name]:
            if own is None or (imported != root and not imported.startswith(f"{root}.")):
                continue
            other = _floor(imported, root, floors)
            other = top if other is None else other
            if other is not None and other > own:
                found.append(f"{name} imports {imported}")
    return found


@pytest.mark.parametrize("name", HOST)
def test_the_host_imports_downwards_only_and_never_dspy(name: str) -> None:
    """contract"""
    own = _floor(name, "dspex", HOST_FLOORS)
    assert own is not None or name in ASIDE or name.startswith("dspex.testing."), f"{name} is on no floor"
    for imported in IMPORTS[name]:
        assert imported.split(".")[0] not in ("dspy", "litellm"), f"{name} imports {imported}"
        if imported.split(".")[0] == "dspex_worker" and own is not None:
            assert imported.startswith(SHARED_WITH_WORKERS), f"{name} imports {imported}"
        other = _floor(imported, "dspex", HOST_FLOORS) if imported.startswith("dspex.") else None
        if own is not None and other is not None:
            assert other <= own, f"{name} imports {imported}, which is above it"
    for side, forbidden in (APART, APART[::-1]):
        if name.startswith(side):
            assert not any(i.startswith(forbidden) for i in IMPORTS[name]), f"{name} imports from {forbidden}"


@pytest.mark.parametrize(
    ("root", "floors", "top"),
    [
        ("dspex.pools", POOL_FLOORS, len(POOL_FLOORS)),
        ("dspex.pipelines", PIPELINE_FLOORS, None),
        ("dspex.programs", PROGRAM_FLOORS, None),
        ("dspex_worker", WORKER_FLOORS, None),
        ("dspex_worker.programs", WORKER_PROGRAM_FLOORS, None),
    ],
)
def test_rooms_of_a_package_stand_on_floors_too(root: str, floors: tuple[str, ...], top: int | None) -> None:
    """contract"""
    assert _ups(root, floors, top) == []


def test_nothing_imports_in_a_circle_not_even_for_the_type_checker() -> None:
    """contract"""
    circles = {frozenset(_reachable(name) & {n for n in ALL if name in _reachable(n)}) for name in ALL}
    assert sorted(map(sorted, circles - {frozenset()})) == []


@functools.cache
def _reachable(name: str) -> frozenset[str]:
    """All that importing the module imports, the module itself only if a circle leads back to it."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        for imported in IMPORTS[ahead.pop()] & ALL.keys() - found:
            found.add(imported)
            ahead.append(imported)
    return frozenset(found)


def test_a_class_name_stands_for_one_class() -> None:
    """contract"""
    homes = defaultdict(list)
    for name, path in ALL.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_a_file_name_stands_for_one_room() -> None:
    """contract"""
    homes = defaultdict(list)
    for path in ALL.values():
        homes[path.name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in homes.items() if len(where) > 1 and name not in SAME_FILE_NAMES} == {}


def test_a_private_name_stays_in_its_module() -> None:
    """contract: a module is what is private (pyright, which would have it be a class, does not look at this)"""
    taken = [
        f"{name} takes {alias.name} of {node.module}"
        for name, path in ALL.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.endswith("__")
    ]
    assert taken == []


@pytest.mark.parametrize("name", WORKER)
def test_the_worker_never_imports_the_host(name: str) -> None:
    """contract"""
    for imported in IMPORTS[name]:
        assert imported.split(".")[0] != "dspex", f"{name} imports {imported}"
        if imported.split(".")[0] == "dspy":
            assert name.startswith("dspex_worker.programs"), f"{name} imports {imported}: only programs may"


def test_bridge_scripts_import_the_worker_package_alone() -> None:
    """contract"""
    for path in (ROOT / "bridge_scripts").glob("*.py"):
        assert not any(i.split(".")[0] == "dspex" for i in _imported(path.stem, path)), path


def test_the_pure_core_knows_no_clock_and_no_thread() -> None:
    """contract"""
    for name in HOST:
        if name.startswith("dspex.pools.state."):
            impure = {"time", "os", "threading", "asyncio"} & IMPORTS[name]
            assert not impure, f"{name} imports {impure}"


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_worker_package_needs_msgpack_alone() -> None:
    """process: all of it but the programs, and the models that only pydantic can make."""
    apart = ("dspex_worker.programs", "dspex_worker.types.models_from_schema", "dspex_worker.__main__")
    names = [name for name in WORKER if not name.startswith(apart)]
    gone = ("dspex", "dspy", "pydantic", "psutil", "structlog", "setproctitle")
    code = f"""
import importlib, sys
sys.modules |= dict.fromkeys({gone!r})
for name in {names!r}:
    importlib.import_module(name)
print("imported")
"""
    assert _run(code) == "imported"


def test_importing_dspex_is_light() -> None:
    """process"""
    code = "import dspex, sys, threading; print(threading.active_count(), len([m for m in sys.modules if 'dspy' in m]))"
    assert _run(code) == "1 0"


def test_native_predict_loads_neither_dspy_nor_litellm() -> None:
    """process"""
    code = """
import sys, dspex
from dspex.testing import FakeLM
with FakeLM([{"answer": "4"}]) as lm:
    assert dspex.predict("question -> answer", {"question": "2+2?"}, lm=lm).answer == "4"
print([name for name in ("dspy", "litellm", "numpy") if name in sys.modules])
"""
    assert _run(code) == "[]"


def test_every_public_name_keeps_its_identity_after_all_submodules_are_imported() -> None:
    """process"""
    code = """
import importlib, pkgutil, dspex
before = {name: getattr(dspex, name) for name in dspex._HOMES}
for module in pkgutil.walk_packages(dspex.__path__, "dspex."):
    if "_bridge_scripts" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
changed = [name for name, value in before.items() if getattr(dspex, name) is not value]
print(len(before), changed)
"""
    count, changed = _run(code).split(" ", 1)
    assert int(count) > 30
    assert changed == "[]"
