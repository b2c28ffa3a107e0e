"""Contract: imports point one way, and the host's process never loads dspy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up: a module may import those of its own layer's folder and of the layers below.
LAYERS: list[tuple[str, ...]] = [
    ("dspex.errors", "dspex.events", "dspex.config", "dspex.settings_exposure"),
    ("dspex.usage_stats", "dspex.descriptors", "dspex.forks", "dspex.lm.installed_dspy"),
    ("dspex.pools", "dspex.inprocess"),
    ("dspex.services.accounts", "dspex.services.registry", "dspex.services.tools", "dspex.defaults", "dspex.services.services"),
    ("dspex.programs.routing",),
    ("dspex.programs",),
    ("dspex.pipelines",),
    ("dspex.control",),
    ("dspex.cli",),
]  # fmt: skip
APART = ("dspex.pools", "dspex.inprocess")  # neither knows the other
ASIDE = ("dspex", "dspex.testing")  # the lazy front door, and what users' tests import


def _modules(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        yield ".".join((prefix, *parts)), path


def _imported(name: str, path: Path) -> set[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in _runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.add(module)
            if node.module is None:
                found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _runtime_nodes(node)


def _layer(name: str) -> int | None:
    for index, members in enumerate(LAYERS):
        if any(name == member or name.startswith(f"{member}.") for member in members):
            return index
    return None


HOST = list(_modules(ROOT / "dspex", "dspex"))
WORKER = list(_modules(ROOT / "workers" / "dspex_worker", "dspex_worker"))


@pytest.mark.parametrize(("name", "path"), HOST, ids=[name for name, _ in HOST])
def test_the_host_imports_downwards_only_and_never_dspy(name: str, path: Path) -> None:
    """contract"""
    own = _layer(name)
    assert own is not None or name in ASIDE or name.startswith("dspex.testing."), f"{name} is in no layer"
    for imported in _imported(name, path):
        assert imported.split(".")[0] not in ("dspy", "litellm"), f"{name} imports {imported}"
        if imported.split(".")[0] == "dspex_worker" and own is not None:
            allowed = ("dspex_worker.wire", "dspex_worker.lifeline", "dspex_worker.memory.procfs", "dspex_worker")
            assert imported.startswith(allowed), f"{name} imports {imported}"
        other = _layer(imported)
        if own is not None and other is not None:
            assert other <= own, f"{name} imports {imported}, which is above it"
    for side, forbidden in (APART, APART[::-1]):
        if name.startswith(side):
            assert not any(i.startswith(forbidden) for i in _imported(name, path)), f"{name} imports from {forbidden}"


@pytest.mark.parametrize(("name", "path"), WORKER, ids=[name for name, _ in WORKER])
def test_the_worker_never_imports_the_host(name: str, path: Path) -> None:
    """contract"""
    for imported in _imported(name, path):
        assert imported.split(".")[0] != "dspex", f"{name} imports {imported}"
        if imported.split(".")[0] == "dspy":
            assert name.startswith("dspex_worker.programs"), f"{name} imports {imported}: only programs may"


def test_bridge_scripts_import_the_worker_package_alone() -> None:
    """contract"""
    for path in (ROOT / "bridge_scripts").glob("*.py"):
        assert not any(i.split(".")[0] == "dspex" for i in _imported(path.stem, path)), path


def test_the_pure_core_knows_no_clock_and_no_thread() -> None:
    """contract"""
    pure = "state board lines placing affinity turnover deaths tickets roster pins poison restarts instructions"
    for name in [*pure.split(), "invariants"]:
        path = ROOT / "dspex" / "pools" / f"{name}.py"
        impure = {"time", "os", "threading", "asyncio"} & _imported(f"dspex.pools.{name}", path)
        assert not impure, f"{name} imports {impure}"


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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
