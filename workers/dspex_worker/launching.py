"""Run a module in another interpreter, from where this one has its packages. Never from the current folder.

A package may lie where a fresh interpreter does not look: in a folder that the program put into `sys.path`, in a
zipapp, beside the script. What is passed on comes after the standard library: no file of it can take the place of a
module of Python's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgpack

_RUN = """
import runpy, sys
folders, module = sys.argv[1:3]
del sys.argv[1:3]
ends = [i for i, entry in enumerate(sys.path) if entry.rstrip("/").endswith(("site-packages", "dist-packages"))]
at = min(ends, default=len(sys.path))
sys.path[at:at] = [entry for entry in folders.split(":") if entry and entry not in sys.path]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def root_of(package_file: str) -> str:
    """Return the folder, or the zip file, in which a package lies whose `__file__` this is."""
    return str(Path(package_file).absolute().parent.parent)


ROOTS = tuple(dict.fromkeys((root_of(__file__), root_of(str(msgpack.__file__)))))  # what workers need to begin with


def command(python: str, module: str, folders: Sequence[str] = ROOTS) -> list[str]:
    """Return the command line that runs a module, which is also looked for in `folders`; arguments may follow it."""
    return [python, *_flags(), "-P", "-c", _RUN, os.pathsep.join(folders), module]


def _flags() -> list[str]:
    """Return what keeps this interpreter from the environment, and from the user's packages."""
    return ["-E"] * bool(sys.flags.ignore_environment) + ["-s"] * bool(sys.flags.no_user_site)
