"""Reload the settings of a running supervisor, and apply those that can change in it."""

from __future__ import annotations

from collections.abc import Iterable

from ..config import Config, PoolConfig, load
from ..errors import WorkerBootError
from ..pools.supervisor import Supervisor


def reload(supervisor: Supervisor, source: str | None) -> list[str]:
    """Read the settings, apply them, and replace every worker by one with newly imported code; blocks until then.

    Gives remarks on what was not applied. Nothing is touched when the settings have an error; a pool whose code cannot
    be imported goes on as it was.

    Raises:
        SettingsError, UnknownName: the settings are wrong.
        WorkerBootError: pools that could not make workers anew; the others have.
    """
    new = load(source)
    declared = {config.name: config for config in new.pools}
    present = {name: supervisor.pool(name).config for name in supervisor.pools}
    failures = [
        failure
        for name in supervisor.pools
        if (failure := _reload_pool(supervisor, declared.get(name, present[name]))) is not None
    ]
    if failures:
        raise WorkerBootError(
            " ".join(str(failure) for failure in failures),
            pool=",".join(failure.pool for failure in failures),
            stderr_tail="".join(failure.stderr_tail for failure in failures),
        )
    return _not_applied(supervisor.config, new, present.keys(), declared.keys())


def _reload_pool(supervisor: Supervisor, config: PoolConfig) -> WorkerBootError | None:
    try:
        supervisor.pool(config.name).reconfigure(config, reload=True)
    except WorkerBootError as error:
        return error
    return None


def _not_applied(old: Config, new: Config, present: Iterable[str], declared: Iterable[str]) -> list[str]:
    """Return what only a restart can change: the set of pools, and what other layers read."""
    there, wanted = set(present), set(declared)
    remarks = [f"pool {name!r} is new: it needs a restart" for name in wanted - there]
    remarks += [f"pool {name!r} is no longer in the settings: it stays until a restart" for name in there - wanted]
    if old.tables != new.tables:
        remarks.append("tables beside [pools], such as [lm], take effect at a restart")
    return sorted(remarks)
