"""Tell one version of a user's module from another, without importing it: by its files' times and sizes.

A version stands for all files of the module's top-level package, or, for a module of one file, of the folder that it
lies in: an edit of what it imports beside it counts too.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

FILES_MOST = 500  # of a package or folder; of larger ones the module's own file alone counts


def version_of(module: str) -> str:
    """Return the version of a module's files as they are now; empty where there are none to be seen."""
    spec = find(module.partition(".")[0])
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return ""
    files = _files(spec, Path(spec.origin))
    digest = hashlib.sha256()
    for path in files:
        try:
            facts = path.stat()
        except OSError:
            continue
        digest.update(f"{path}\0{facts.st_mtime_ns}\0{facts.st_size}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def find(name: str) -> ModuleSpec | None:
    """Return where a top-level module would be imported from; nothing is imported."""
    found = (_found_by(finder, name) for finder in sys.meta_path)
    return next((spec for spec in found if spec is not None), None)


def _found_by(finder: Any, name: str) -> ModuleSpec | None:
    find_spec = getattr(finder, "find_spec", None)
    spec = None if find_spec is None else find_spec(name, None)
    return spec if isinstance(spec, ModuleSpec) else None


def _files(spec: ModuleSpec, origin: Path) -> list[Path]:
    if spec.submodule_search_locations is not None:
        paths: Iterable[Path] = origin.parent.rglob("*.py")
    elif _is_installed(origin):
        return [origin]
    else:
        paths = origin.parent.glob("*.py")
    files = list(_some(paths))
    return sorted(files) if len(files) <= FILES_MOST else [origin]


def _some(paths: Iterable[Path]) -> Iterator[Path]:
    for at, path in enumerate(paths):
        if at > FILES_MOST:
            return
        yield path


def _is_installed(path: Path) -> bool:
    """Whether it is part of an installation, beside whose modules others lie that are none of its business."""
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    return any(path.is_relative_to(folder) for folder in folders)
