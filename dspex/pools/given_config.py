"""Read the settings that a supervisor is made with, and check that this process can run pools at all."""

from __future__ import annotations

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
    if sys.platform != "linux":
        raise SettingsError(f"DSPex runs its pools on Linux (epoll, pidfd, lifelines); this is {sys.platform}.")
    if not hasattr(select, "epoll"):
        raise SettingsError(
            "select.epoll is missing in this process: gevent or eventlet has replaced it, and threads as well, which "
            "DSPex needs as they were. Start the supervisor in a process that is not monkey-patched."
        )
    if pools is not None and source is not None:
        raise SettingsError("Give a settings file or pools=, not both.", key="pools")
    if pools is not None:
        return Config(checked_pools(pools), {}, "arguments")
    return source if isinstance(source, Config) else load(source)


def require_virtualenvs(pools: Sequence[PoolConfig], source: str = "defaults") -> None:
    """Check that the virtualenvs of these pools were made; `source` is that of their settings.

    Raises:
        VirtualenvMissing: one was not.
        SettingsError: others may write one.
    """
    for pool in pools:
        if (virtualenv := pool.virtualenv) is not None:
            virtualenv.require(pool.name, "" if source == "defaults" else source)
