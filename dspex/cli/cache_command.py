"""`dspex cache`: show what a file of language models' answers holds, or empty it."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from ..defaults import CONFIG_VARIABLE
from ..errors import SettingsError
from ..lm.cache import Cache
from .exit_codes import FAILED, OK
from .target import print_json, print_line


def cache(options: argparse.Namespace) -> int:
    """Do it; services that use the file go on meanwhile, with what they keep in memory.

    Raises:
        SettingsError: no file is named, there is none, or it is not safely this user's.
    """
    path = _path(options)
    if not path.exists():
        raise SettingsError(f"There is no cache at {path}.", key="path")
    opened = Cache(path=path)
    try:
        if options.action == "clear":
            opened.clear()
        stats = opened.stats()
    finally:
        opened.close()
    if options.json:
        shown = dataclasses.asdict(stats)
        print_json({name: shown[name] for name in ("path", "disk", "disk_entries", "disk_bytes")})
    else:
        print_line(f"{path}: {stats.disk_entries:,} entries, {stats.disk_bytes:,} bytes, {stats.disk}")
    return OK if stats.disk in ("in use", "read-only") else FAILED


def _path(options: argparse.Namespace) -> Path:
    if options.path:
        return Path(options.path)
    source = options.config or os.environ.get(CONFIG_VARIABLE)
    if source:
        from ..config import load

        table = load(source).tables.get("cache")
        if isinstance(table, dict) and isinstance(table.get("path"), str):
            return Path(table["path"]).expanduser()
    raise SettingsError(
        "Which cache? Give its file's path, or settings with a [cache] table that names one (--config, DSPEX_CONFIG).",
        key="path",
    )
