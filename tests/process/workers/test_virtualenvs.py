"""Process: `dspex setup` makes a pool's virtualenv, once, whole and private; pools start with a complete one only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dspex
from dspex.config import PoolConfig, load
from dspex.errors import SettingsError, VirtualenvMissing
from dspex.virtualenvs import COMPLETE, Virtualenv, virtualenv_folder

BRIDGE = """
from dspex_worker.bridge import Bridge
bridge = Bridge("where")

@bridge.command()
def where(ctx):
    import sys, greeting, dspex_worker
    return {"prefix": sys.prefix, "said": greeting.SAID, "worker": dspex_worker.__file__, "path": list(sys.path)}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of virtualenvs of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def wheel(folder: Path, said: str = "hello") -> Path:
    """Write a wheel that holds one module."""
    path = folder / "greeting-1.0-py3-none-any.whl"
    info = "greeting-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("greeting.py", f"SAID = {said!r}\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"greeting.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def settings(folder: Path, *requirements: str) -> Path:
    """Write settings of one pool with these requirements."""
    bridge = folder / "where_bridge.py"
    bridge.write_text(BRIDGE)
    file = folder / "dspex.toml"
    file.write_text(f"[pools.own]\nsize = 1\nbridge = {str(bridge)!r}\nrequirements = {json.dumps(requirements)}\n")
    return file


def setup(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dspex setup`."""
    command = [sys.executable, "-m", "dspex.cli", "setup", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_pool_runs_in_the_virtualenv_that_setup_makes(tmp_path: Path, cache: Path) -> None:
    """Process: refused before, with the command; then made once, used, shown, checked; removed when nobody needs it."""
    file = settings(tmp_path, str(wheel(tmp_path)))
    (pool,) = load(file).pools
    virtualenv = pool.virtualenv
    assert virtualenv is not None
    assert virtualenv.path.parent == cache / "dspex" / "venvs"
    with pytest.raises(VirtualenvMissing) as missing:
        dspex.Supervisor(file).start()
    assert missing.value.command == f"dspex setup --config {file} own"
    assert missing.value.command in str(missing.value)

    first = subprocess.Popen([sys.executable, "-m", "dspex.cli", "setup", "--config", str(file)], stderr=2, stdout=1)
    second = setup("--config", str(file), "--json")
    assert first.wait(300) == 0, "two at once make one"
    assert second.returncode == 0, second.stderr
    assert setup("--config", str(file), "own").stdout == f"own: there: {virtualenv.path}\n"
    assert virtualenv.path.stat().st_mode & 0o077 == 0

    with dspex.Supervisor(file) as sup:
        where = sup.call("own", "where", {}, timeout=60)
        assert where["said"] == "hello"
        assert Path(where["prefix"]) == virtualenv.path
        assert Path(where["worker"]).is_relative_to(virtualenv.path)
        assert not any(str(Path(dspex.__file__).parent.parent) == entry for entry in where["path"])
        (tmp_path / "none.toml").write_text("[pools.faults]\nsize = 1\n")
        pruned = json.loads(setup("--prune", "--config", str(tmp_path / "none.toml"), "--json").stdout)
        assert pruned == {"removed": [], "in_use": [str(virtualenv.path)]}

    (row,) = json.loads(setup("--list", "--config", str(file), "--json").stdout)["virtualenvs"]
    assert (row["state"], row["pools"]) == ("complete", ["own"])
    doctor = subprocess.run(
        [sys.executable, "-m", "dspex.cli", "doctor", "--quick", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"ok    interpreter of pool own: {virtualenv.interpreter}" in doctor.stdout
    assert setup("--prune", "--config", str(file)).stdout == ""
    assert setup("--prune", "--config", str(tmp_path / "none.toml")).stdout == f"removed {virtualenv.path}\n"
    assert not virtualenv.path.exists()


def test_a_half_made_one_is_never_used(tmp_path: Path) -> None:
    """Process: setup is killed in the middle, or the installer fails: the pool is refused, and the next setup works."""
    file = settings(tmp_path, str(wheel(tmp_path)))
    virtualenv = load(file).pools[0].virtualenv
    assert virtualenv is not None
    running = subprocess.Popen(
        [sys.executable, "-m", "dspex.cli", "setup", "--config", str(file)], start_new_session=True
    )
    while not (virtualenv.path / "bin").exists():
        assert running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.wait(60)
    assert virtualenv.path.exists()
    with pytest.raises(VirtualenvMissing):
        virtualenv.require("own", "")
    assert setup("--config", str(file)).returncode == 0
    virtualenv.require("own", "")
    (virtualenv.path / COMPLETE).write_text("{")
    with pytest.raises(VirtualenvMissing):
        virtualenv.require("own", "")

    broken = settings(tmp_path, str(tmp_path / "no-such-file.whl"))
    failed = setup("--config", str(broken))
    assert failed.returncode == 1
    assert "own: failed: " in failed.stdout
    lost = load(broken).pools[0].virtualenv
    assert lost is not None
    assert not lost.path.exists()


def test_what_it_is_made_from_names_it(tmp_path: Path) -> None:
    """Process: order does not matter; another version, wheel or interpreter means another virtualenv."""
    one = wheel(tmp_path)
    made = Virtualenv.of([str(one), "b"], sys.executable).path
    assert Virtualenv.of([str(one), "b"], sys.executable).path == made
    assert Virtualenv.of(["b==1"], sys.executable).path != Virtualenv.of(["b==2"], sys.executable).path
    assert Virtualenv.of(["b", "c"], sys.executable).path == Virtualenv.of(["c", "b"], sys.executable).path
    wheel(tmp_path, "another text")
    assert Virtualenv.of([str(one), "b"], sys.executable).path != made
    assert Virtualenv.of(["b"], "/bin/sh").path != Virtualenv.of(["b"], sys.executable).path


@pytest.mark.parametrize(
    "requirement",
    ["-r x.txt", "--index-url=http://a", "-e .", "a --pre", "a\n--index-url http://x", "a @ https://u:pw@h/a.whl", ""],
)
def test_options_and_passwords_are_no_requirements(requirement: str) -> None:
    """Process: before anything is run; a password is not repeated."""
    with pytest.raises(SettingsError) as refused:
        PoolConfig("own", bridge="faults", requirements=[requirement])
    assert refused.value.key == "pools.own.requirements"
    assert "u:pw" not in str(refused.value)


def test_requirements_mean_exec_and_fork_is_refused() -> None:
    """Process: another interpreter cannot be forked from this one's modules."""
    assert PoolConfig("own", bridge="faults", requirements=["a"]).start_method == "exec"
    with pytest.raises(SettingsError) as refused:
        PoolConfig("own", bridge="faults", requirements=["a"], start_method="fork")
    assert refused.value.key == "pools.own.start_method"


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Process: what stands there runs as this user."""
    folder = virtualenv_folder()
    virtualenv = Virtualenv.of(["a"], sys.executable)
    virtualenv.path.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(SettingsError, match="chmod 700"):
        virtualenv.require("own", "")
    file = settings(tmp_path, "a")
    assert setup("--config", str(file)).returncode != 0
