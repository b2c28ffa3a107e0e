"""Find every fault of the settings, each with its place: what is wrong is taken out, and the rest is read again."""

from __future__ import annotations

import copy
import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..config import TABLES, config_of_tables, read_settings_text
from ..errors import DspexError, SettingsError, UnknownName
from .environment_names import setting_variables, strange_variables
from .settings_places import SettingsPlace, SettingsPlaces

MOST = 200  # faults that are told of
_AT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)")

Tables = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SettingsFault:
    """What is wrong, and where: in a file, or in a variable of the environment."""

    message: str
    where: str
    line: int | None = None
    column: int | None = None
    key: str | None = None
    level: Literal["error", "warning"] = "error"

    @property
    def place(self) -> str:
        """FILE:LINE:COLUMN, as editors read it."""
        return ":".join(str(part) for part in (self.where, self.line, self.column) if part is not None)


def settings_faults(source: str | None, environ: Mapping[str, str]) -> list[SettingsFault]:
    """Return them, in the order of the file; variables of the environment come last."""
    environment = dict(environ)
    found: list[SettingsFault] = []
    tables: Tables = {}
    places = SettingsPlaces()
    if source is not None:
        try:
            text = read_settings_text(Path(source))
        except SettingsError as error:
            return [SettingsFault(str(error), source)]
        found, text = _syntax_faults(source, text)
        tables, places = tomllib.loads(text), SettingsPlaces.of_text(text)
    declared = tables.get("pools")
    pools = list(declared) if isinstance(declared, dict) and declared else ["dspy", "mipro"]
    where = source or "the defaults"
    found += [_placed(wrong, where, places, environ, pools) for wrong in _every(tables, environment, where)]
    found.sort(key=lambda fault: (fault.line is None, fault.line or 0, fault.column or 0))
    return found[:MOST] + [
        SettingsFault(str(one), f"${one.name}", key=one.name, level="warning")
        for one in strange_variables(pools, environ)
    ]


def _syntax_faults(source: str, text: str) -> tuple[list[SettingsFault], str]:
    """Return what is no TOML, and the text with these lines blank."""
    found: list[SettingsFault] = []
    while len(found) < MOST:
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = _AT.search(str(error))
            lines = text.split("\n")
            number = int(at[1]) if at and at[1] else len(lines)
            column = int(at[2]) if at and at[2] else 1
            message = f"{_AT.sub('', str(error))}."
            if not lines[number - 1].strip():  # what is missing is missed at the end: nothing more can be read
                found.append(SettingsFault(message, source, number, column))
                return found, ""
            found.append(SettingsFault(message, source, number, column))
            lines[number - 1] = ""
            text = "\n".join(lines)
        except RecursionError:
            return [*found, SettingsFault("Its values are nested too deep to be read.", source)], ""
        else:
            return found, text
    return found, ""


def _every(tables: Tables, environ: dict[str, str], where: str) -> Iterator[DspexError]:
    """Yield the errors of each table by itself: those of one do not hide those of another."""
    for name in [name for name in tables if name not in TABLES]:
        yield from _peeled(lambda own: _read_pools(own, environ, where), {name: tables[name]}, environ)
    pools = {"pools": tables["pools"]} if "pools" in tables else {}
    yield from _peeled(lambda own: _read_pools(own, environ, where), pools, environ)
    for name, check in _checks().items():
        if name in tables:
            yield from _peeled(check, {name: tables[name]}, environ)


def _read_pools(tables: Tables, environ: Mapping[str, str], where: str) -> None:
    config_of_tables(tables, environ, source=where)


def _checks() -> dict[str, Callable[[Tables], Any]]:
    from ..lm.cache_settings import cache_of_tables
    from ..lm.named_lms import NamedLMs
    from ..lm.usage import UsageMeter, set_process_budget
    from ..programs.optimization.job_settings import job_settings
    from .control_settings import has_socket, http_port, max_clients
    from .log_file import LogSettings

    def cache(tables: Tables) -> None:
        table = tables["cache"]
        is_table = isinstance(table, dict)
        opened = {name: value for name, value in table.items() if name != "path"} if is_table else table
        if is_table and not isinstance(table.get("path", ""), str):
            raise SettingsError(f"cache.path is {table['path']!r}: it is the path of a file.", key="cache.path")
        cache_of_tables({"cache": opened})

    def lm(tables: Tables) -> None:
        table = tables["lm"]
        if isinstance(table, dict) and "model" not in table:
            if near := difflib.get_close_matches("model", table, n=1):
                raise SettingsError(str(UnknownName("setting", near[0], ["model"], where="[lm]")), key=f"lm.{near[0]}")
            raise SettingsError("The [lm] table needs a model, such as model = 'openai/gpt-4o-mini'.", key="lm.model")
        NamedLMs.of_tables(tables)

    return {
        "lm": lm,
        "lms": NamedLMs.of_tables,
        "budget": lambda tables: set_process_budget(UsageMeter(), tables),
        "cache": cache,
        "control": lambda tables: (has_socket(tables), max_clients(tables, None)),
        "http": lambda tables: http_port(tables, None),
        "jobs": job_settings,
        "log": LogSettings.of,
    }


def _peeled(check: Callable[[Tables], Any], tables: Tables, environ: dict[str, str]) -> Iterator[DspexError]:
    """Yield what a check raises; the setting that an error names is taken out before the next try."""
    left = copy.deepcopy(tables)
    for _ in range(MOST):
        try:
            check(left)
        except (DspexError, ValueError, TypeError) as error:
            table = next(iter(tables), "")
            key = getattr(error, "key", None) or table
            if table and key.partition(".")[0] != table and key in (tables[table] or {}):
                key = f"{table}.{key}"  # it was told without its table
            yield SettingsError(str(error), key=key)
            if not _take_out(left, environ, key):
                return
        else:
            return


def _take_out(tables: Tables, environ: dict[str, str], key: str | None) -> bool:
    """Remove what a key names, from the environment if it is there; False if there is nothing of that name."""
    parts = (key or "").split(".")
    if parts[0] == "pools" and len(parts) > 2:
        variable = setting_variables(".".join(parts[1:-1])).get(parts[-1])
        if variable is not None and environ.pop(variable, None) is not None:
            return True
    table: Any = tables
    while isinstance(table, dict) and parts:
        heads = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]  # a name may hold dots itself
        head = next((one for one in heads if one in table), None)
        if head is None:
            return False
        parts = parts[head.count(".") + 1 :]
        if not parts:
            del table[head]
            return True
        table = table[head]
    return False


def _placed(
    error: DspexError, source: str, places: SettingsPlaces, environ: Mapping[str, str], pools: list[str]
) -> SettingsFault:
    key: str | None = getattr(error, "key", None)
    for pool in pools:
        name = (key or "").removeprefix(f"pools.{pool}.")
        variable = setting_variables(pool).get(name)
        if variable is not None and name != key and variable in environ:
            return SettingsFault(str(error), f"${variable}", key=key)
    place: SettingsPlace | None = places.of_key(key) if key else None
    if place is None:
        return SettingsFault(str(error), source, key=key)
    return SettingsFault(str(error), source, place.line, place.column, key)
