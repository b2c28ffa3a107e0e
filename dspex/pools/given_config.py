"""Read the settings that a supervisor is made with, and check that this process can run pools at all."""

from __future__ import annotations

import _thread
import os
import select
import sys
from collections.abc import Sequence

from ..config import Config, PoolConfig, checked_pools, load
from ..errors import SettingsError


def config_of(source: str | os.PathLike[str] | Config | None, pools: Sequence[PoolConfig] | None) -> Config:
    """Return the settings of a supervisor that is given a file, a `Config`, pools, or nothing.

    Raises:
        SettingsError: both are given, they cannot be right, or this process can run no pools.
    """
    require_own_modules()
    if pools is not None and source is not None:
        raise SettingsError("Give a settings file or pools=, not both.", key="pools")
    if pools is not None:
        return Config(checked_pools(pools), {}, "arguments")
    return source if isinstance(source, Config) else load(source)


def require_own_modules() -> None:
    """Check that what pools run on is there, and Python's own.

    Raises:
        SettingsError: this is another system than Linux, or its modules were replaced.
    """
    if sys.platform != "linux":
        raise SettingsError(f"DSPex runs its pools on Linux (epoll, pidfd, lifelines); this is {sys.platform}.")
    if not hasattr(select, "epoll") or not _has_real_threads():
        raise SettingsError(
            "select.epoll or threads are not Python's own in this process: gevent or eventlet has replaced them, and "
            "DSPex needs them as they were. Start the supervisor in a process that is not monkey-patched: run `dspex "
            "start` beside it."
        )


def _has_real_threads() -> bool:
    """Return whether a new thread is one of the system's: a green one would never run beside the engine."""
    starter = str(getattr(_thread.start_new_thread, "__module__", ""))  # debuggers replace it as well, by real ones
    return not starter.startswith(("gevent", "eventlet"))


def require_virtualenvs(pools: Sequence[PoolConfig], source: str = "defaults") -> None:
    """Check that the virtualenvs of these pools were made; `source` is that of their settings.

    Raises:
        VirtualenvMissing: one was not.
        SettingsError: others may write one.
    """
    for pool in pools:
        if (virtualenv := pool.virtualenv) is not None:
            virtualenv.require(pool.name, "" if source == "defaults" else source)
