"""Make the process's cache of what is given: a `Cache`, a file's path, or the settings' [cache] table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError, UnknownName
from .cache import Cache

if TYPE_CHECKING:
    from .lm_client import LMClient

NAMES = ("path", "most_entries", "most_bytes", "most_disk_bytes", "ttl")
CacheLike = Cache | str | os.PathLike[str]


def cache_from(given: CacheLike) -> Cache:
    """Return the cache that is meant.

    Raises:
        SettingsError: it is none, or its file cannot be used.
    """
    if isinstance(given, Cache):
        return given
    if isinstance(given, str | os.PathLike):
        return Cache(path=given)
    raise SettingsError(f"cache is {given!r}; it is a dspex.Cache, or the path of a file for one.", key="cache")


def cache_of_tables(tables: Mapping[str, Any]) -> Cache | None:
    """Return the cache of a [cache] table; None if there is no such table.

    Raises:
        SettingsError: the table holds something else than a cache's settings, or its file cannot be used.
    """
    table = tables.get("cache")
    if table is None:
        return None
    if not isinstance(table, dict):
        raise SettingsError(f"The [cache] table takes {', '.join(NAMES)}.", key="cache")
    for name in table:
        if name not in NAMES:
            raise SettingsError(str(UnknownName("setting", name, NAMES, where="[cache]")), key=f"cache.{name}")
    return Cache(**table)


def set_process_cache(client: LMClient, given: CacheLike | None, tables: Mapping[str, Any]) -> None:
    """Set the process's cache: what is given, else that of the settings, unless another was given before.

    Raises:
        SettingsError: as `cache_from` and `cache_of_tables`.
    """
    if given is not None:
        client.use_cache(cache_from(given))
    elif "cache" in tables and not client.is_cache_given:
        made = cache_of_tables(tables)
        if made is not None and made.settings != client.cache.settings:
            client.use_cache(made, is_given=False)
