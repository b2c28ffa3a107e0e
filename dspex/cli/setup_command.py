"""`dspex setup`: make the virtualenvs of pools that name their requirements."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ..defaults import CONFIG_VARIABLE
from .exit_codes import FAILED, OK
from .printing import print_json, print_line
from .shared_options import command

if TYPE_CHECKING:
    from ..config import Config, PoolConfig


@command("setup", more="The settings' pools name them as `requirements`. What the installer prints goes to stderr.")
@click.argument("pools", nargs=-1, metavar="[POOL]...", help="These pools (default: all that have requirements).")
@click.option("--config", metavar="FILE", type=click.Path(), help="The settings file (default: $DSPEX_CONFIG).")
@click.option("--list", "is_list", is_flag=True, help="Show the virtualenvs that there are, and make none.")
@click.option("--prune", "is_prune", is_flag=True, help="Remove those that these settings do not need.")
def setup(pools: tuple[str, ...], config: str | None, is_list: bool, is_prune: bool, as_json: bool) -> int:
    """Make what is missing, list what is there, or remove what is not needed.

    Raises:
        SettingsError: the settings cannot be read, or others may write the folder of virtualenvs.
        UnknownName: there is no such pool.
    """
    from ..config import load

    if is_list and is_prune:
        raise click.UsageError("--list and --prune are two commands.")
    settings = load(config or os.environ.get(CONFIG_VARIABLE) or None)
    if is_list:
        return _list(settings, as_json=as_json)
    if is_prune:
        return _prune(settings, as_json=as_json)
    return _build(_chosen(settings, pools), as_json=as_json)


def _chosen(settings: Config, names: tuple[str, ...]) -> list[PoolConfig]:
    from ..errors import UnknownName

    with_requirements = {pool.name: pool for pool in settings.pools if pool.requirements}
    for name in names:
        if name not in with_requirements:
            raise UnknownName("pool with requirements", name, with_requirements, where=settings.source)
    return [with_requirements[name] for name in names or with_requirements]


def _build(pools: list[PoolConfig], *, as_json: bool) -> int:
    from .virtualenv_builder import BuildFailed, build

    rows: list[dict[str, Any]] = []
    for pool in pools:
        virtualenv = pool.virtualenv
        assert virtualenv is not None  # it has requirements
        row: dict[str, Any] = {"pool": pool.name, "path": str(virtualenv.path)}
        try:
            row["state"] = "made" if build(virtualenv) else "there"
        except BuildFailed as error:
            row |= {"state": "failed", "error": str(error)}
        rows.append(row)
        if not as_json:
            print_line(f"{pool.name}: {row['state']}: {row.get('error') or row['path']}")
    if as_json:
        print_json({"virtualenvs": rows})
    elif not rows:
        print_line("No pool of these settings has requirements: there is nothing to make.")
    return FAILED if any(row["state"] == "failed" for row in rows) else OK


def _list(settings: Config, *, as_json: bool) -> int:
    from .virtualenv_builder import found

    users = _users(settings)
    rows = [
        {
            "path": str(one.path),
            "state": "complete" if one.facts else "incomplete",
            "requirements": one.facts.get("requirements", []),
            "pools": users.get(str(one.path), []),
        }
        for one in found()
    ]
    if as_json:
        print_json({"virtualenvs": rows})
    for row in rows if not as_json else ():
        pools = f" (pools: {', '.join(row['pools'])})" if row["pools"] else ""
        print_line(f"{row['path']}: {row['state']}{pools}: {', '.join(row['requirements'])}")
    return OK


def _prune(settings: Config, *, as_json: bool) -> int:
    from .virtualenv_builder import prune

    removed, used = prune(pool.virtualenv for pool in settings.pools if pool.virtualenv is not None)
    if as_json:
        print_json({"removed": list(map(str, removed)), "in_use": list(map(str, used))})
    else:
        for path in removed:
            print_line(f"removed {path}")
        for path in used:
            print_line(f"kept {path}: a process uses it")
    return OK


def _users(settings: Config) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for pool in settings.pools:
        if pool.virtualenv is not None:
            users.setdefault(str(pool.virtualenv.path), []).append(pool.name)
    return users
