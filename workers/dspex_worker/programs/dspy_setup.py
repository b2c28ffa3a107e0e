"""Prepare a process for DSPy: what a fork server imports before it forks, and how a worker is configured.

`warm` runs in the fork server, on its only thread, and must leave it so (a fork copies one thread): imports and tables,
no connection, no progress bar, no evaluation. `setup` runs in each worker's main thread, which thereby owns DSPy's
settings; calls override them with `dspy.context` alone. Importing this file imports no DSPy.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .commands import Programs

_MODULES = (
    "commands",
    "retrievers",
    "lms.worker_lm",
    "lms.user_lms",
    "lms.user_embedders",
    "lms.predictor_lms",
    "modules.module_cache",
    "metrics.metric_calls",
    "streaming.field_streams",
    "evaluating.scored_rows",
    "evaluating.prediction_scores",
)


def warm(settings: Mapping[str, Any], *, optimizers: bool = False) -> None:
    """Import what calls will need. With `optimizers`, also what optimizing needs, as far as it is installed."""
    _prepare_environment()
    if optimizers:  # their bars would be lines of the host's log; progress travels as chunks
        os.environ.setdefault("TQDM_DISABLE", "1")
    import dspy  # noqa: F401  # pyright: ignore[reportUnusedImport] - to have it loaded
    from tqdm import tqdm  # type: ignore[import-untyped]

    for name in _MODULES:
        importlib.import_module(f"dspex_worker.programs.{name}")
    from .dspy_parts import load_model_table

    tqdm.monitor_interval = 0  # no monitor thread for progress bars that nobody sees
    load_model_table()  # shared by every fork
    if optimizers:
        importlib.import_module("dspex_worker.programs.optimizing.optimization")
        if importlib.util.find_spec("optuna"):
            importlib.import_module("optuna")


def setup(settings: Mapping[str, Any]) -> Programs:
    """Configure DSPy for this worker and give what its commands call."""
    _prepare_environment()
    import dspy

    from .calls import marker_guard, thread_settings, user_settings
    from .code import class_sources
    from .commands import Programs
    from .dspy_parts import HAS_LM15
    from .lms import lm_answers, predictor_lms, shared_usage, stream_ends, user_chat_lms, user_embedders, user_lms
    from .observing import dspys_log

    # No history and no global trace: by default both keep every prompt (85 MB after 2,000 calls of 20 KB). Calls that
    # need a trace open their own. What DSPy would put into its history is looked at, and not kept (lm_answers.py).
    lm_answers.install()
    dspy.configure(disable_history=False, trace=None)
    # The parent has checked the inputs; DSPy's own check only warns, and raises TypeError for every TypedDict.
    dspy.configure(warn_on_type_mismatch=False)
    # Caching is the parent's: DSPy's key knows no endpoint, and its disk cache opens 49 files and never expires.
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    carrying = (user_lms, stream_ends) if HAS_LM15 else (user_chat_lms,)
    always = (user_embedders, user_settings, thread_settings, predictor_lms, class_sources, shared_usage, dspys_log)
    marker_guard.install()
    for each in (*carrying, *always):
        each.install()
    _let_rows_take_their_time()
    _lower_log_levels()
    return Programs.for_pool(settings)


def _prepare_environment() -> None:
    # Without it the first priced call of each process fetches a table from the internet (5 s timeout).
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    for library in ("OPENBLAS", "OMP", "MKL"):  # numpy's would start a thread per core on import, and no fork keeps it
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def _let_rows_take_their_time() -> None:
    """Let DSPy's executor never run a row again: it would after 120 s, and pay for it twice (dspy#9574)."""
    import dspy
    from dspy.utils.parallelizer import ParallelExecutor

    functions: tuple[Any, ...] = (ParallelExecutor.__init__, dspy.Parallel.__init__, dspy.Module.batch)
    for function in functions:
        optional = [one for one in inspect.signature(function).parameters.values() if one.default is not one.empty]
        function.__defaults__ = tuple(0 if one.name == "timeout" else one.default for one in optional)


def _lower_log_levels() -> None:
    # DSPy logs per-example scores and proposals at INFO to stderr; progress travels as chunks instead.
    logging.getLogger("dspy").setLevel(logging.WARNING)
    # DSPy's own modules use what DSPy itself deprecates (MultiChainComparison).
    warnings.filterwarnings("ignore", message="The 'prefix' argument in InputField/OutputField")
