"""Read the settings' [control] and [http] tables: where a service listens, and what it allows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError, UnknownName

SETTINGS = ("max_clients", "socket")


def max_clients(tables: Mapping[str, Any], wanted: int | None) -> int:
    """Return --max-clients, else what the table says, else the default.

    Raises:
        SettingsError: the table holds something else.
    """
    from ..control.connection_places import MAX_CLIENTS

    table = _control_table(tables)
    own = table.get("max_clients", MAX_CLIENTS)
    if isinstance(own, bool) or not isinstance(own, int) or own < 1:
        raise SettingsError(f"control.max_clients is {own!r}: it must be 1 or more.", key="control.max_clients")
    return own if wanted is None else wanted


def has_socket(tables: Mapping[str, Any]) -> bool:
    """Return whether clients may connect at all; false if the table says `socket = false`.

    Raises:
        SettingsError: the table holds something else.
    """
    own = _control_table(tables).get("socket", True)
    if not isinstance(own, bool):
        raise SettingsError(f"control.socket is {own!r}: it is true or false.", key="control.socket")
    return own


def http_port(tables: Mapping[str, Any], wanted: int | None) -> int | None:
    """Return --http, else what the [http] table says, else None: no port is opened.

    Raises:
        SettingsError: the table holds something else, or there is a port without the control socket.
    """
    table = tables.get("http", {})
    if not isinstance(table, dict) or set(table) - {"port"}:
        raise SettingsError("The [http] table has one setting: port.", key="http")
    port = table.get("port")
    if port is not None:
        from ..telemetry.http_listener import checked_port

        port = checked_port(port)
    port = port if wanted is None else wanted
    if port is not None and not has_socket(tables):
        raise SettingsError(f"Port {port} needs the control socket, and control.socket is false.", key="http.port")
    return port


def _control_table(tables: Mapping[str, Any]) -> dict[str, Any]:
    table = tables.get("control", {})
    if not isinstance(table, dict):
        raise SettingsError(f"The [control] table has the settings {' and '.join(SETTINGS)}.", key="control")
    for name in table:
        if name not in SETTINGS:
            raise SettingsError(str(UnknownName("setting", name, SETTINGS, where="[control]")), key=f"control.{name}")
    return table
