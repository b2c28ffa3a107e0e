"""Reading the settings again for a running supervisor, and what of them can take effect in it."""

from __future__ import annotations

import dataclasses

from ..config import Config, PoolConfig, load
from ..pools.state import Rules
from ..pools.supervisor import Supervisor

_FIXED = {rule.name for rule in dataclasses.fields(Rules)} - {"size"}  # what a running pool has decided by


def reload(supervisor: Supervisor, source: str | None) -> list[str]:
    """Read the settings, apply what workers are started with, and replace every worker; blocks until that is done.

    Gives remarks on what was not applied. Nothing is touched when the settings have an error.

    Raises:
        SettingsError, UnknownName: the settings are wrong.
    """
    new = load(source)
    remarks = _differences(supervisor.config, new)
    declared = {config.name: config for config in new.pools}
    for name in supervisor.pools:
        if name in declared:
            _apply(supervisor, declared[name])
    for name in supervisor.pools:
        supervisor.pool(name).recycle(reload=True)
    return remarks


def _apply(supervisor: Supervisor, new: PoolConfig) -> None:
    pool = supervisor.pool(new.name)
    old = pool.config
    pool.config = dataclasses.replace(new, **{name: getattr(old, name) for name in _FIXED})
    if new.size != old.size:
        pool.resize(new.size)


def _differences(old: Config, new: Config) -> list[str]:
    before = {config.name: config for config in old.pools}
    after = {config.name: config for config in new.pools}
    remarks = [f"pool {name!r} is new: it needs a restart" for name in after.keys() - before.keys()]
    gone = before.keys() - after.keys()
    remarks += [f"pool {name!r} is no longer in the settings: it stays until a restart" for name in gone]
    for name in before.keys() & after.keys():
        changed = sorted(key for key in _FIXED if getattr(before[name], key) != getattr(after[name], key))
        remarks += [f"pools.{name}.{key} takes effect at a restart" for key in changed]
    if old.tables != new.tables:
        remarks.append("tables beside [pools], such as [lm], take effect at a restart")
    return sorted(remarks)
