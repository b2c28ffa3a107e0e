"""Write the files of a new bridge or web service: templates of this package with a name filled in."""

from __future__ import annotations

import contextlib
import importlib.resources
import re
from pathlib import Path
from string import Template

from ..errors import InvalidInput
from .init_command import write_new

BRIDGE = {"bridge.py": "{name}_bridge.py", "test_bridge.py": "test_{name}_bridge.py"}
SERVICE = {
    "README.md": "README.md",
    "app.py": "app.py",
    "programs.py": "programs.py",
    "service.toml": "dspex.toml",
    "pyproject.toml": "pyproject.toml",
    "test_app.py": "tests/test_app.py",
}


def write_project(files: dict[str, str], name: str, folder: Path, *, force: bool) -> list[Path]:
    """Write them into the folder, which is made; return their paths. All are there in the end, or no new one.

    Raises:
        InvalidInput: the name cannot be that of a module.
        SettingsError: a file is there already, or cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,50}", name):
        raise InvalidInput(f"{name!r} is no name for it: letters, digits and _, a letter first.")
    made: list[Path] = []
    try:
        for template, target in files.items():
            path = folder / target.format(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            existed = path.exists()
            write_new(path, _text(template, name), force=force)
            if not existed:
                made.append(path)
    except Exception:  # whatever went wrong, no half of a project is left; raised again
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return [folder / target.format(name=name) for target in files.values()]


def _text(template: str, name: str) -> str:
    source = importlib.resources.files("dspex.cli") / "new_files" / f"{template}.txt"
    return Template(source.read_text(encoding="utf-8")).substitute(name=name)
