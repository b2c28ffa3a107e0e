"""Import modules by name for calls that the host itself makes: they are looked for where the host looks."""

from __future__ import annotations

import pkgutil
import sys
import sysconfig
from types import ModuleType

from ... import own_imports
from ..calls.call_context import running
from ..dspy_errors import unknown_name


def follow_import_path() -> None:
    """Look for modules where the host does, now."""
    entries = running().call_parent("code.path", {})
    own_imports.follow(entry for entry in entries if isinstance(entry, str))


def imported(name: str, version: str = "") -> ModuleType:
    """Return a module by its name, in this version of its files; it is looked for where the host looks.

    Raises:
        Failure: UnknownName, when there is none of that name. What its own code raises is raised as it is.
    """
    if own_imports.is_at(name, version):
        return sys.modules[name]
    follow_import_path()
    try:
        return own_imports.import_at(name, version)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # a module that it imports itself is missing
        raise unknown_name("module", name, _own_modules(), where="the workers' import path") from None


def _own_modules() -> list[str]:
    """Return the names of the modules that are of no installation: the user's own, to find near ones among."""
    installed = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib"))
    folders = [entry for entry in sys.path if not entry.startswith(installed)]
    return sorted(found.name for found in pkgutil.iter_modules(folders) if not found.name.startswith("_"))
