"""Load the provider library that the installed DSPy carries (lm15), without importing DSPy.

It writes the requests of providers that have no dialect here, so their bytes are DSPy's whatever its version. Loaded at
the first such request (0.1 s, 10 MB), under a name of its own: DSPy, should the process import it, has its own copy.
Where DSPy is not installed, the package `lm15` serves if there is one. Any thread.
"""

from __future__ import annotations

import importlib
import sys
import threading
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from typing import Any

from .installed_dspy import dspy_folder

DROPPABLE = frozenset({"config.probabilities", "config.response_format", "config.tool_choice.parallel", "label"})
"""What it may leave out of a request, by its own name: an answer's form, which adapters ask for where they can."""
_NAME = "dspex_lm15_of_dspy"
_lock = threading.Lock()


@cache
def has_lm15() -> bool:
    """Whether there is such a library."""
    folder = dspy_folder()
    return (folder is not None and (folder / "_vendor" / "lm15" / "__init__.py").is_file()) or find_spec(
        "lm15"
    ) is not None


@cache
def lm15(name: str) -> Any:
    """Return a module of the library, such as "registry"."""
    return importlib.import_module(f"{_root()}.{name}")


def _root() -> str:
    folder = dspy_folder()
    path = folder / "_vendor" / "lm15" if folder is not None else None
    if path is None or not path.is_dir():
        return "lm15"
    with _lock:
        if _NAME not in sys.modules:
            spec = spec_from_file_location(_NAME, path / "__init__.py", submodule_search_locations=[str(path)])
            assert spec is not None and spec.loader is not None
            module = module_from_spec(spec)
            sys.modules[_NAME] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:  # also Ctrl-C: half a module must not be found
                del sys.modules[_NAME]
                raise
    return _NAME
