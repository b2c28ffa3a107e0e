"""The settings in force, each with where its value comes from; secrets are not shown."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import PoolConfig, load, read_settings_text
from ..lm.redaction import redact
from ..settings_exposure import secret_names
from .environment_names import setting_variables
from .settings_places import SettingsPlaces

HIDDEN = "(set, not shown)"


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting; `origin` is "default", FILE:LINE or $VARIABLE."""

    table: str
    key: str
    value: Any
    origin: str


def shown_settings(source: str | None) -> list[ShownSetting]:
    """Return them in the order of the tables.

    Raises:
        SettingsError: they cannot be read.
    """
    config = load(source)
    text = "" if source is None else read_settings_text(Path(source))
    tables, places = tomllib.loads(text), SettingsPlaces.of_text(text)
    found = [one for pool in config.pools for one in _pool(pool, tables, places, source)]
    for name, table in config.tables.items():
        found += _table(name, table, places, source, frozenset(secret_names({name: table})))
    if model := os.environ.get("DSPEX_LM"):
        found.append(ShownSetting("lm", "model", model, "$DSPEX_LM"))
    return found


def _pool(
    pool: PoolConfig, tables: Mapping[str, Any], places: SettingsPlaces, source: str | None
) -> Iterator[ShownSetting]:
    declared = tables.get("pools", {}).get(pool.name, {})
    variables = setting_variables(pool.name)
    secrets = set(secret_names(dict(pool.env))) if pool.env else set()
    for one in dataclasses.fields(PoolConfig):
        if one.name == "name":
            continue
        value = getattr(pool, one.name)
        if one.name == "env":
            value = {name: HIDDEN if name in secrets else text for name, text in dict(value).items()}
        elif one.name == "options":
            value = _without_secrets(dict(value))
        if os.environ.get(variables[one.name]) is not None:
            origin = f"${variables[one.name]}"
        elif one.name in declared:
            origin = _origin(f"pools.{pool.name}.{one.name}", places, source)
        else:
            origin = "default"
        yield ShownSetting(f"pools.{pool.name}", one.name, value, origin)


def _table(
    name: str, table: Any, places: SettingsPlaces, source: str | None, secrets: frozenset[str]
) -> Iterator[ShownSetting]:
    if not isinstance(table, Mapping):
        yield ShownSetting("", name, _shown(table), _origin(name, places, source))
        return
    for key, value in table.items():
        dotted = f"{name}.{key}"
        if isinstance(value, Mapping) and name == "lms":
            yield from _table(dotted, value, places, source, secrets)
        else:
            hidden = dotted in secrets
            shown = HIDDEN if hidden else _shown(value)
            yield ShownSetting(name, key, shown, _origin(dotted, places, source))


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _without_secrets(value)
    return redact(value) if isinstance(value, str) else value


def _without_secrets(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: HIDDEN if set(secret_names({name: value})) == {name} else _shown(value) for name, value in table.items()
    }


def _origin(key: str, places: SettingsPlaces, source: str | None) -> str:
    place = places.of_key(key)
    return f"{source}:{place.line}" if place is not None else str(source)
