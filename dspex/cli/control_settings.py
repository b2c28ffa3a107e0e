"""Read the settings' [control] table: what a service allows its clients. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError, UnknownName

SETTINGS = ("max_clients",)


def max_clients(tables: Mapping[str, Any], wanted: int | None) -> int:
    """Return --max-clients, else what the table says, else the default.

    Raises:
        SettingsError: the table holds something else.
    """
    from ..control.connection_places import MAX_CLIENTS

    table = tables.get("control", {})
    if not isinstance(table, dict):
        raise SettingsError("The [control] table has one setting: max_clients.", key="control")
    for name in table:
        if name not in SETTINGS:
            raise SettingsError(str(UnknownName("setting", name, SETTINGS, where="[control]")), key=f"control.{name}")
    own = table.get("max_clients", MAX_CLIENTS)
    if isinstance(own, bool) or not isinstance(own, int) or own < 1:
        raise SettingsError(f"control.max_clients is {own!r}: it must be 1 or more.", key="control.max_clients")
    return own if wanted is None else wanted
