"""The faults, for pools that run functions: the commands of the shipped `faults` bridge. Runs in workers."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

NAME = "dspex_faults_bridge"  # the same in hosts and workers: classes are pickled by their module's name
NO_BOOT = "this worker was told not to start"


def run(fault: str, arguments: dict[str, Any]) -> Any:
    """Run one of the bridge's commands that need no pool of DSPex's around them, or every bridge's `echo`."""
    if fault == "echo":
        return arguments
    return module().bridge.commands[fault].function(None, **arguments)


def refuse_to_boot() -> None:
    """The initializer of workers that cannot start."""
    raise RuntimeError(NO_BOOT)


def module() -> ModuleType:
    """Return the bridge's module, loaded once in each process."""
    if NAME not in sys.modules:
        from ..config import PoolConfig

        spec = importlib.util.spec_from_file_location(NAME, PoolConfig("faults", bridge="faults").bridge_path)
        if spec is None or spec.loader is None:
            raise ImportError("the faults bridge cannot be loaded")
        loading = importlib.util.module_from_spec(spec)
        sys.modules[NAME] = loading
        spec.loader.exec_module(loading)
    return sys.modules[NAME]
