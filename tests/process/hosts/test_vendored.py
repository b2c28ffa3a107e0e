"""Process: workers and services start from wherever the package lies, and from nowhere else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.service import folder

__all__ = ["folder"]

USE = """
import dspex
assert {root!r} in dspex.__file__, dspex.__file__
if __name__ == "__main__":
    for method in ("fork", "exec"):
        pool = dspex.PoolConfig("f", bridge="faults", size=1, start_method=method)
        with dspex.Supervisor(pools=[pool]) as supervisor:
            print(supervisor.wait_ready().call("f", "echo", {{"n": 1}}))
"""
BOTH = "{'n': 1}\n{'n': 1}\n"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install --target` makes of the wheel: pyproject.toml says what goes where."""
    path = tmp_path_factory.mktemp("target")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dspex", path / "dspex", ignore=ignored)
    shutil.copytree(ROOT / "workers" / "dspex_worker", path / "dspex_worker", ignore=ignored)
    shutil.copytree(ROOT / "bridge_scripts", path / "dspex" / "_bridge_scripts", ignore=ignored)
    return path


def run(*words: str, cwd: Path, path: Path | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("how", ["sys.path.insert(0, {!r})", "sys.path[0:0] = [{!r}, '']"])
def test_a_folder_in_sys_path(target: Path, tmp_path: Path, how: str) -> None:
    """process: vendored beside the program"""
    script = tmp_path / "program.py"
    script.write_text(f"import sys; {how.format(str(target))}\n{USE.format(root=str(target))}")
    assert run(str(script), cwd=tmp_path) == BOTH


def test_beside_the_script(target: Path, tmp_path: Path) -> None:
    """process"""
    shutil.copytree(target, tmp_path / "app")
    (tmp_path / "app" / "main.py").write_text(USE.format(root=str(tmp_path)))
    assert run("app/main.py", cwd=tmp_path) == BOTH


def test_a_zipapp(target: Path, tmp_path: Path) -> None:
    """process: named by a relative path, and left by the program afterwards"""
    shutil.copytree(target, tmp_path / "app")
    leave = "\nimport os; os.chdir('/')\n"
    (tmp_path / "app" / "__main__.py").write_text("import dspex.pools.supervisor" + leave + USE.format(root="app.pyz"))
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    assert run("app.pyz", cwd=tmp_path) == BOTH


PATHS = """
import sys
from dspex_worker.bridge import Bridge
bridge = Bridge("paths")
bridge.command("path")(lambda ctx: sys.path)
"""
SHADOWS = ("token", "types", "random", "json", "signal", "msgpack")


def test_the_current_folder_gives_a_service_nothing(folder: Path, target: Path, tmp_path: Path) -> None:
    """process: in a shared folder anybody's file could be what a service runs; both kinds of start look alike"""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'shadowed')!r}, 'a').write({name!r})\n")
    (folder / "paths_bridge.py").write_text(PATHS)
    toml = folder / "d.toml"
    toml.write_text(f"[pools.p]\nbridge = '{folder / 'paths_bridge.py'}'\nsize = 1\n")
    command = folder / "dspex.py"  # as the console's script: its own folder comes first
    command.write_text("import sys\nfrom dspex.cli import main\nsys.exit(main())\n")
    script = ["-P", str(command)]
    seen = []
    run(*script, "start", "--daemon", "--config", str(toml), cwd=tmp_path, path=target)
    seen.append(json.loads(run(*script, "call", "p", "path", cwd=tmp_path, path=target)))
    run(*script, "stop", cwd=tmp_path, path=target)
    env = {**os.environ, "PYTHONPATH": str(target)}
    begun = [sys.executable, *script, "start", "--config", str(toml)]
    process = subprocess.Popen(begun, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "ready:" in line:
            break
    seen.append(json.loads(run(*script, "call", "p", "path", cwd=tmp_path, path=target)))
    run(*script, "stop", cwd=tmp_path, path=target)
    process.communicate(timeout=60)
    assert not (tmp_path / "shadowed").exists()
    assert seen[0] == seen[1] and str(tmp_path) not in seen[0]
