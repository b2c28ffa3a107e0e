"""Import a user's modules by name as the host names them: on its path, in the version that its files have.

A version stands for all files of a top-level module: of its package, or of the folder that it lies in. Where another
version was imported before, these modules are imported anew; what was made of the old ones keeps them. Any thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Final

_VERSION: Final = "__dspex_version__"  # on the top-level module
_lock = threading.RLock()


def follow(entries: Iterable[str]) -> None:
    """Look for modules where the host does, in its order; what stands before all that both have stays first."""
    given = list(entries)
    if not given:
        return
    common = set(given)
    first = list(itertools.takewhile(lambda entry: entry not in common, sys.path))
    others = [entry for entry in sys.path[len(first) :] if entry not in common]
    merged = [*first, *given, *others]
    if merged != sys.path:
        sys.path[:] = merged
    importlib.invalidate_caches()  # of a file that was written since


def is_at(name: str, version: str) -> bool:
    """Whether a module is imported, and not in another version."""
    top = sys.modules.get(name.partition(".")[0])
    return name in sys.modules and top is not None and (not version or vars(top).get(_VERSION, version) == version)


def import_at(name: str, version: str) -> ModuleType:
    """Return the module, imported in this version; "" takes it as it is.

    Raises:
        ModuleNotFoundError: there is none. What its code raises is raised as it is.
    """
    with _lock:
        title = name.partition(".")[0]
        top = sys.modules.get(title)
        if version and top is not None and vars(top).get(_VERSION, version) != version:
            _forget(title, top)
        module = importlib.import_module(name)
        if version:
            setattr(sys.modules[title], _VERSION, version)
        return module


def _forget(title: str, top: ModuleType) -> None:
    """Take a user's modules out, with the bytecode of their files: an edit of equal length may look as old as that."""
    folder = Path(top.__file__).parent if top.__file__ else None
    is_package = hasattr(top, "__path__")
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        beside = not is_package and isinstance(file, str) and Path(file).parent == folder
        if name == title or name.startswith(f"{title}.") or (beside and name != "__main__"):
            del sys.modules[name]
            if isinstance(file, str) and file.endswith(".py"):
                Path(importlib.util.cache_from_source(file)).unlink(missing_ok=True)
    importlib.invalidate_caches()
