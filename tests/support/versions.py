"""Runs the versions' tests on each Python that is here, and on each DSPy that the workers' side supports.

    python -m tests.support.versions [--unit] [--folder .versions] [NAME ...]

Makes a virtualenv for each, once; prints a table. `--unit` runs tests/unit too, on each Python with the newest DSPy. A
Python that is not here, or whose packages cannot be installed, is a row that says so; the exit code is 1 if a test
failed, or nothing could be run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEWEST = ""  # what pip chooses
OTHER_DSPYS = ("3.3.1", "3.4.0")  # on the first Python that is here
NEEDS = ("pytest>=8", "pytest-timeout>=2.3", "pytest-asyncio>=1", "hypothesis>=6.100", "fastapi>=0.115", "httpx>=0.27")


@dataclass(frozen=True)
class Combination:
    """One Python and one DSPy."""

    python: str
    dspy: str

    @property
    def name(self) -> str:
        return f"{self.python}-dspy{self.dspy or '-newest'}"


def main(words: list[str]) -> int:
    """Run them all; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--unit", action="store_true")
    parser.add_argument("--folder", type=Path, default=ROOT / ".versions")
    options = parser.parse_args(words)
    rows, ran, failed = [], 0, 0
    for combination in combinations():
        if options.names and combination.name not in options.names:
            continue
        folders = ["tests/versions", *(["tests/unit"] if options.unit and combination.dspy == NEWEST else [])]
        outcome = run(combination, options.folder / combination.name, folders)
        ran += outcome.ran
        failed += outcome.failed
        rows.append(f"{combination.name:24} {outcome.said}")
        print(rows[-1], flush=True)
    print("\n".join(["", *rows]))
    return 1 if failed or not ran else 0


def combinations() -> Iterator[Combination]:
    """Every Python with the newest DSPy, and the first that is here with each other DSPy."""
    for python in PYTHONS:
        yield Combination(python, NEWEST)
    first = next((python for python in PYTHONS if interpreter(python)), None)
    for dspy in OTHER_DSPYS if first is not None else ():
        yield Combination(str(first), dspy)


@dataclass(frozen=True)
class Outcome:
    """What became of a combination."""

    said: str
    ran: bool = False
    failed: bool = False


def run(combination: Combination, venv: Path, folders: list[str]) -> Outcome:
    """Make its virtualenv if there is none, and run the tests in it."""
    base = interpreter(combination.python)
    if base is None:
        return Outcome(f"not run: no Python {combination.python} is here")
    if refusal := made(base, venv, combination.dspy):
        return Outcome(f"not run: {refusal}")
    python = str(venv / "bin" / "python")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "workers")])}
    code = "import platform, dspy; print(f'Python {platform.python_version()}, DSPy {dspy.__version__}')"
    what = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment).stdout.strip()
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
    counted = re.findall(r"^\d+ (?:passed|failed).*$", done.stdout, re.MULTILINE)
    return Outcome(f"{what}: {counted[-1] if counted else 'no test ran'}", ran=True, failed=done.returncode != 0)


def made(base: str, venv: Path, dspy: str) -> str:
    """Make a virtualenv with all that the tests need; return what went wrong, or ""."""
    ready = venv / ".ready"
    if ready.is_file():
        return ""
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    wanted = f"dspy=={dspy}" if dspy else "dspy"
    for command in ([base, "-m", "venv", str(venv)], [*pip, "--editable", f"{ROOT}[optimizers]", wanted, *NEEDS]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip() or "it failed").splitlines()[-1]
    ready.touch()
    return ""


def interpreter(version: str) -> str | None:
    """Return a Python of this version: of the path, or of pyenv."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    installed = sorted(pyenv.glob(f"versions/{version}.*/bin/{name}"))
    for one in [shutil.which(name), *map(str, installed)]:
        if one and subprocess.run([one, "-c", ""], capture_output=True).returncode == 0:
            return one
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
