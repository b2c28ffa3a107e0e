"""Warn if a settings file holds a secret and other users of the machine may read it."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .events import Event, Name, write_log

_SECRET = re.compile(r"api_?key|token$|^token|secret|password|credential|authorization|cookie|x-.*-?key", re.IGNORECASE)
_USER_INFO = re.compile(r"^[a-z0-9+.-]+://[^/@\s]+:[^/@\s]+@", re.IGNORECASE)


def warn_if_exposed(path: Path, tables: Mapping[str, Any]) -> None:
    """Log a warning that names the keys (never their values) and the remedy."""
    names = list(secret_names(tables))
    if not names:
        return
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:  # gone since it was read
        return
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        remedy = f"chmod 600 {path}, or take the key out: the environment names of providers are read too"
        facts = {"path": str(path), "mode": f"{mode:04o}", "keys": ", ".join(names), "remedy": remedy}
        write_log(Event(Name.SETTINGS_EXPOSED, facts))


def secret_names(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the dotted names of the settings that hold a secret."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from secret_names(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Mapping):
                    yield from secret_names(item, f"{prefix}{name}.")
        elif isinstance(value, str) and value and (_SECRET.search(name) or _USER_INFO.match(value)):
            yield f"{prefix}{name}"
