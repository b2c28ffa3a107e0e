"""`dspex cache`: show what a file of language models' answers holds, or empty it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from ..defaults import CONFIG_VARIABLE
from ..errors import SettingsError
from ..lm.cache import Cache
from .exit_codes import FAILED, OK
from .printing import print_json, print_line
from .shared_options import command


@command("cache")
@click.argument("action", type=click.Choice(["stats", "clear"]), help="What to do.")
@click.argument(
    "path",
    required=False,
    metavar="[PATH]",
    type=click.Path(),
    help="The file (default: the settings' [cache] path).",
)
@click.option("--config", metavar="FILE", type=click.Path(), help="The settings file (default: $DSPEX_CONFIG).")
def cache(action: str, path: str | None, config: str | None, as_json: bool) -> int:
    """Do it; services that use the file go on meanwhile, with what they keep in memory.

    Raises:
        SettingsError: no file is named, there is none, or it is not safely this user's.
    """
    file = _file(path, config)
    if not file.exists():
        raise SettingsError(f"There is no cache at {file}.", key="path")
    opened = Cache(path=file)
    try:
        if action == "clear":
            opened.clear()
        stats = opened.stats()
    finally:
        opened.close()
    if as_json:
        shown = dataclasses.asdict(stats)
        print_json({name: shown[name] for name in ("path", "disk", "disk_entries", "disk_bytes")})
    else:
        print_line(f"{file}: {stats.disk_entries:,} entries, {stats.disk_bytes:,} bytes, {stats.disk}")
    return OK if stats.disk in ("in use", "read-only") else FAILED


def _file(path: str | None, config: str | None) -> Path:
    if path:
        return Path(path)
    source = config or os.environ.get(CONFIG_VARIABLE)
    if source:
        from ..config import load

        table = load(source).tables.get("cache")
        if isinstance(table, dict) and isinstance(table.get("path"), str):
            return Path(table["path"]).expanduser()
    raise SettingsError(
        "Which cache? Give its file's path, or settings with a [cache] table that names one (--config, DSPEX_CONFIG).",
        key="path",
    )
