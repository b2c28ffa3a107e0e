"""What type checkers see of the public names: right code passes, each mistake is found, by mypy and by pyright."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dspex
from dspex.config import PoolConfig, PoolSettings
from dspex.lm.record import LMChanges
from dspex.programs.optimization.optimizer_options import LM_OPTIONS, OPTIMIZER_NAMES, OptimizerOptions

ROOT = Path(__file__).parents[2]
RIGHT, WRONG = ROOT / "tests" / "typing" / "right.py", ROOT / "tests" / "typing" / "wrong.py"
Errors = dict[Path, dict[int, str]]


def by_mypy(folder: Path) -> Errors:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
        str(RIGHT),
        str(WRONG),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.stdout, done.stderr
    found: Errors = {}
    for name, line, text in re.findall(r"^(.+?):(\d+): error: (.+)$", done.stdout, re.MULTILINE):
        found.setdefault(ROOT / name, {})[int(line)] = text
    return found


def by_pyright(folder: Path) -> Errors:
    settings = {
        "include": [str(RIGHT), str(WRONG)],
        "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT), str(ROOT / "workers")],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    found: Errors = {}
    for problem in json.loads(done.stdout)["generalDiagnostics"]:
        if problem["severity"] == "error":
            line = problem["range"]["start"]["line"] + 1
            found.setdefault(Path(problem["file"]), {})[line] = problem["message"]
    return found


@pytest.mark.parametrize(("module", "check"), [("mypy", by_mypy), ("basedpyright", by_pyright)])
def test_type_checkers_accept_right_code_and_find_each_mistake(
    module: str, check: Callable[[Path], Errors], tmp_path: Path
) -> None:
    """contract: of both files, so that a checker that finds nothing at all does not pass"""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; it is in the extra dev")
    marked = {number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if line.endswith("# wrong")}
    assert len(marked) > 15
    found = check(tmp_path)
    assert found.get(RIGHT, {}) == {}
    assert sorted(found.get(WRONG, {})) == sorted(marked)


def test_dir_lists_the_public_names_and_the_errors_and_nothing_else() -> None:
    """contract"""
    names = dir(dspex)
    errors = {name for name in names if isinstance(getattr(dspex, name), type) and name in vars(dspex.errors)}
    assert names == sorted(names) == dspex.__all__
    assert set(names) == {*dspex._HOMES} | errors
    assert {"LMError", "CallTimeout", "predict", "LM"} <= set(names)


def test_every_public_name_is_known_to_type_checkers_by_its_home() -> None:
    """contract: the imports for checkers and the table of homes say the same"""
    tree = ast.parse((ROOT / "dspex" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
        if alias.name != "*"
    }
    assert seen == dict(dspex._HOMES)


def test_names_of_settings_are_the_fields_that_are_read() -> None:
    """contract: what checkers accept is what is read"""
    fields = set(PoolConfig.__dataclass_fields__)
    assert set(PoolSettings.__optional_keys__) == fields - {"name"}
    made = dspex.LM("openai/gpt-4o-mini").settings()
    assert set(made) <= set(LMChanges.__optional_keys__)


def test_names_of_optimizers_and_their_options_are_those_of_the_workers() -> None:
    """process: asked in a process of its own, since it loads dspy"""
    code = """
import json
from dspex_worker.programs.optimizers import known_optimizers as o
options = {name for one in o.OPTIMIZERS.values() for name in one.options}
print(json.dumps([sorted({*o.OPTIMIZERS, *o._ALIASES}), sorted(options)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=True)
    names, options = json.loads(done.stdout.splitlines()[-1])
    assert sorted(OPTIMIZER_NAMES) == names
    assert sorted(OptimizerOptions.__optional_keys__ - LM_OPTIONS.keys()) == options
