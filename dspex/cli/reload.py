"""Reading the settings again for a running supervisor, and what of them can take effect in it."""

from __future__ import annotations

import dataclasses

from ..config import Config, PoolConfig, load
from ..pools.supervisor import Supervisor


def reload(supervisor: Supervisor, source: str | None) -> list[str]:
    """Read the settings, apply the sizes, and replace every worker by one with newly imported code; blocks until then.

    Gives remarks on what was not applied. Nothing is touched when the settings have an error.

    Raises:
        SettingsError, UnknownName: the settings are wrong.
    """
    new = load(source)
    for name in supervisor.pools:
        supervisor.pool(name).recycle(reload=True)
    declared = {config.name: config for config in new.pools}
    for name in supervisor.pools:  # after the recycling: more workers are then forked from the new template
        pool = supervisor.pool(name)
        if name in declared and declared[name].size != pool.stats()["size"]:
            pool.resize(declared[name].size)
    return _not_applied(supervisor.config, new)


def _not_applied(old: Config, new: Config) -> list[str]:
    """Say what differs beside the sizes: a pool decides by the settings that it was made with."""
    before = {config.name: config for config in old.pools}
    after = {config.name: config for config in new.pools}
    remarks = [f"pool {name!r} is new: it needs a restart" for name in after.keys() - before.keys()]
    gone = before.keys() - after.keys()
    remarks += [f"pool {name!r} is no longer in the settings: it stays until a restart" for name in gone]
    for name in before.keys() & after.keys():
        remarks += [f"pools.{name}.{key} takes effect at a restart" for key in _changed(before[name], after[name])]
    if old.tables != new.tables:
        remarks.append("tables beside [pools], such as [lm], take effect at a restart")
    return sorted(remarks)


def _changed(old: PoolConfig, new: PoolConfig) -> list[str]:
    names = [field.name for field in dataclasses.fields(PoolConfig) if field.name != "size"]
    return [name for name in names if getattr(old, name) != getattr(new, name)]
