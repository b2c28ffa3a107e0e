"""Load a pool's bridge script, with its workers' imports. In the fork server, or in an exec'd worker."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from . import own_imports
from .bridge import Bridge, Settings
from .builtin_commands import echo, lister, ping


def load_bridge(settings: Settings) -> Bridge:
    """Import the bridge script and run its `warm` functions.

    Raises:
        RuntimeError: the script does not bind a `Bridge` to the name `bridge`.
    """
    for entry in reversed(settings.get("path") or []):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    path = Path(settings["bridge"])
    bridge = getattr(_import_script(path), "bridge", None)
    if not isinstance(bridge, Bridge):
        raise RuntimeError(f"the bridge script {str(path)!r} binds no dspex_worker.bridge.Bridge to the name 'bridge'")
    for name in settings.get("imports") or []:
        importlib.import_module(name)
    for warm in bridge.warmers:
        warm(settings)
    _import_learned(settings)
    _add_builtin_commands(bridge)
    return bridge


def _import_learned(settings: Settings) -> None:
    """Import what the host's calls have named, where the host finds it; what fails is imported at first need."""
    learned: dict[str, str] = settings.get("learned") or {}
    if learned:
        own_imports.follow(settings.get("host_path") or [])
    for name, version in learned.items():
        try:
            own_imports.import_at(name, version)
        except BaseException as error:  # whatever a user's module raises, also SystemExit
            print(f"dspex: {name} cannot be imported ahead of calls: {error!r}", file=sys.stderr, flush=True)


def _import_script(path: Path) -> ModuleType:
    if str(path.parent) not in sys.path:  # last: processes that commands start with multiprocessing import it by name
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=_FromSource(path.stem, str(path)))
    if spec is None or spec.loader is None:
        raise RuntimeError(f"the bridge {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


class _FromSource(SourceFileLoader):
    """Reads the script itself: the cache of bytecode takes an edit of equal length within a second for none."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _add_builtin_commands(bridge: Bridge) -> None:
    for name, function in (("ping", ping), ("echo", echo), ("commands", lister(bridge))):
        if name not in bridge.commands:
            bridge.command(name, cancel_safe=True)(function)
