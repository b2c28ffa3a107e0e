"""Process: the cache that is given to `configure`, to a supervisor and by the settings, shared by processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.cli import main
from dspex.errors import SettingsError
from dspex.lm.cache_settings import cache_of_tables
from dspex.testing import FakeLM

CHILD = """
import json, sys
import dspex

def ask(**options):
    base, key = sys.argv[1:3]
    lm = dspex.LM("openai/fake", api_base=base, api_key=key)
    out = dspex.predict("question -> answer", {"question": "q"}, lm=lm, adapter="chat", **options)
    print(json.dumps([out.answer, out.cached, dspex.defaults.client().cache.stats().disk_entries]))

if __name__ == "__main__":
    path, settings = sys.argv[3], sys.argv[0] + ".toml"
"""
WAYS = {
    "configure": 'dspex.configure(cache=dspex.Cache(path=path)); ask(implementation="native")',
    "path": 'dspex.configure(cache=path); ask(implementation="native")',
    "supervisor": """
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)], cache=dspex.Cache(path=path)) as sup:
        ask(implementation="python", supervisor=sup)
""",
    "settings": """
    with open(settings, "w") as file:
        file.write("[pools.dspy]\\nsize = 1\\n[cache]\\nmost_entries = 5\\npath = " + json.dumps(path))
    with dspex.Supervisor(settings) as sup:
        ask(implementation="python", supervisor=sup)
""",
    "default settings": """
    dspex.configure(budget_usd=1.0)
    with open(settings, "w") as file:
        file.write("[cache]\\npath = " + json.dumps(path))
    dspex.configure(config=settings)
    ask(implementation="native")
""",
}


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM([{"answer": "paid for"}]) as fake:
        yield fake


def ask(way: str, lm: FakeLM, path: Path, folder: Path) -> list[Any]:
    script = folder / "child.py"
    code = WAYS[way]
    script.write_text(CHILD + (code if code.startswith("\n") else f"    {code}"))
    command = [sys.executable, str(script), lm.api_base, str(lm.api_key), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ.copy())
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("way", WAYS)
def test_what_one_process_paid_for_another_has(way: str, lm: FakeLM, tmp_path: Path) -> None:
    """process: each way of attaching it, on both routes; the second process asks nobody."""
    path = tmp_path / "kept" / "answers.db"
    assert ask(way, lm, path, tmp_path) == ["paid for", False, 1]
    for again in ("configure", way):
        assert ask(again, lm, path, tmp_path) == ["paid for", True, 1]
    assert len(lm.requests) == 1 and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "table", [{"file": "x"}, {"path": 5}, {"path": ""}, {"ttl": 0}, {"most_bytes": -1}, "x", {"most_entries": True}]
)
def test_odd_tables_are_refused(table: Any) -> None:
    """unit"""
    with pytest.raises(SettingsError):
        cache_of_tables({"cache": table})


def test_odd_caches_are_refused() -> None:
    """unit: by both ways of giving one."""
    with pytest.raises(SettingsError, match=r"dspex\.Cache"):
        dspex.configure(cache=5)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"dspex\.Cache"):
        dspex.Supervisor(cache=True)  # type: ignore[arg-type]


@pytest.fixture
def kept(tmp_path: Path, lm: FakeLM) -> Path:
    path = tmp_path / "own" / "answers.db"
    ask("configure", lm, path, tmp_path)
    return path


def test_shell_shows_and_clears_it(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """process: by its path, by the settings, in words and as JSON."""
    assert main(["cache", "stats", str(kept)]) == 0
    assert "1 entries" in capsys.readouterr().out
    settings = tmp_path / "dspex.toml"
    settings.write_text(f"[cache]\npath = {json.dumps(str(kept))}\n")
    monkeypatch.setenv("DSPEX_CONFIG", str(settings))
    assert main(["cache", "stats", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["disk_entries"], shown["disk"], shown["path"]) == (1, "in use", str(kept))
    assert main(["cache", "clear"]) == 0 and "0 entries" in capsys.readouterr().out
    with dspex.Cache(path=kept) as cache:
        assert cache.stats().disk_entries == 0


def test_shell_refuses_what_is_no_cache(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """process: a file that is missing, others' or none at all; nothing is made."""
    monkeypatch.delenv("DSPEX_CONFIG", raising=False)
    assert main(["cache", "stats", str(tmp_path / "none.db")]) == 2
    assert main(["cache", "stats"]) == 2 and not (tmp_path / "none.db").exists()
    kept.chmod(0o666)
    assert main(["cache", "clear", str(kept)]) == 2
    assert "chmod" in capsys.readouterr().err
    kept.chmod(0o600)
    kept.write_bytes(b"no database" * 1000)
    assert main(["cache", "stats", str(kept)]) == 1 and "given up" in capsys.readouterr().out
    assert main(["cache", "clear", str(kept)]) == 0
