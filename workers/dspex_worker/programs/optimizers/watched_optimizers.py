"""Let a job see what DSPy's optimizers tell nobody: each bootstrapped example and SIMBA's candidates.

Nothing that an optimizer decides is changed. The job's `Watcher` is found among DSPy's settings, which DSPy carries
into its own threads; without one (a module of the user's that optimizes by itself) nothing is looked at.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, Protocol

import dspy

WATCHER = "dspex_job"  # among DSPy's settings
_INSTALLED = "_dspex_watched"


class Watcher(Protocol):
    """What a job wants to be told. Any thread of the optimizer's calls it."""

    def attempted(self, *, is_taken: bool) -> None:
        """Take note that an example was run for a demonstration, and whether it gave one."""
        ...

    def watched(self, program: dspy.Module, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return what SIMBA runs for one example, with its score told."""
        ...


def install() -> None:
    """Let DSPy's optimizers be watched, in this process from now on."""
    bootstrap: Any = dspy.BootstrapFewShot
    bootstrap._bootstrap_one_example = _watching_attempts(bootstrap._bootstrap_one_example)
    try:
        simba: Any = importlib.import_module("dspy.teleprompt.simba")
    except ImportError:  # numpy is not there
        return
    simba.wrap_program = _watching_runs(simba.wrap_program)


def _watcher() -> Watcher | None:
    found: Watcher | None = dspy.settings.get(WATCHER)
    return found


def _watching_attempts(original: Any) -> Any:
    if hasattr(original, _INSTALLED):
        return original

    @functools.wraps(original)
    def attempt(self: Any, *given: Any, **named: Any) -> Any:
        is_taken = original(self, *given, **named)
        if (watcher := _watcher()) is not None:
            watcher.attempted(is_taken=bool(is_taken))
        return is_taken

    setattr(attempt, _INSTALLED, True)
    return attempt


def _watching_runs(original: Any) -> Any:
    if hasattr(original, _INSTALLED):
        return original

    @functools.wraps(original)
    def wrap_program(program: dspy.Module, metric: Any) -> Any:
        run, watcher = original(program, metric), _watcher()
        return run if watcher is None else watcher.watched(program, run)

    setattr(wrap_program, _INSTALLED, True)
    return wrap_program
