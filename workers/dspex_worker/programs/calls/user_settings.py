"""Decide what `dspy.configure(...)` in user code means in a worker.

Where a module is imported, it sets what calls begin with: an LM and an adapter hold for calls that bring none of their
own, so the host's go first. Inside a call it holds for the rest of that call, and for no other. DSPy would let one
thread of the process configure, and raise in every other.
"""

from __future__ import annotations

import importlib
from typing import Any

from .call_context import SETTING

# By name: the package's attribute of this name is the settings object, and not the module.
dspy_settings: Any = importlib.import_module("dspy.dsp.utils.settings")
_KEPT_BY_WORKERS = frozenset({"disable_history", "trace"})  # both would keep every prompt of the process


def install() -> None:
    """Let user code configure DSPy, in this process from now on."""
    dspy_settings.main_thread_config = WorkerConfig(dspy_settings.main_thread_config)
    dspy_settings.Settings._ensure_configure_allowed = _let_any_thread


class WorkerConfig(dspy_settings.dotdict):  # type: ignore[misc]  # it has no types
    """DSPy's settings of the process, which `dspy.configure` writes, however user code came by that name."""

    def __setitem__(self, name: str, value: Any) -> None:
        overrides = dspy_settings.thread_local_overrides
        if SETTING in overrides.get():
            overrides.set(dspy_settings.dotdict({**overrides.get(), name: value}))
        elif name not in _KEPT_BY_WORKERS:
            super().__setitem__(name, value)


def _let_any_thread(settings: Any) -> None:
    """Let any thread configure: a call's thread imports modules, and what it sets inside the call is the call's."""
