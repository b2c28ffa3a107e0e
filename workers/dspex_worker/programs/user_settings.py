"""Decide what `dspy.configure(...)` in user code means in a worker.

Where a module is imported, it sets what calls begin with: an LM and an adapter hold for calls that bring none of their
own, so the host's go first. Inside a call it holds for the rest of that call, and for no other. DSPy would let one
thread of the process configure, and raise in every other.
"""

from __future__ import annotations

from typing import Any

import dspy
from dspy.dsp.utils import settings as dspy_settings

from .call_context import SETTING

_KEPT_BY_WORKERS = frozenset({"disable_history", "trace"})  # both would keep every prompt of the process


def install() -> None:
    """Let user code configure DSPy, in this process from now on."""
    type(dspy.settings).configure = _configure


def _configure(self: Any, **given: Any) -> None:
    overrides = dspy_settings.thread_local_overrides
    if SETTING in overrides.get():
        overrides.set(dspy_settings.dotdict({**overrides.get(), **given}))
        return
    with dspy_settings.global_lock:
        for name, value in given.items():
            if name not in _KEPT_BY_WORKERS:
                dspy_settings.main_thread_config[name] = value
