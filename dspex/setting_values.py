"""Read one setting's value from code, a TOML file or the environment: checked, and in its unit. Pure."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from dspex_worker.wire import FRAME_LEAST, FRAME_MOST, encode

from .errors import SettingsError
from .unshown_values import plain
from .virtualenvs import checked_requirements

Affinity = Literal["hint", "strict_queue", "strict_fail_fast"]
StartMethod = Literal["fork", "exec"]
LMPolicy = Literal["any", "named"]

UNSHOWN = frozenset({"plain", "variables"})  # kinds of tables that may hold keys
MIB = 1024**2
GIB = 1024**3
NICE_MOST = 19
OPTIONS_MOST = 32 * 1024  # bytes of a pool's options, which reach its fork server in one packet with the other settings

_SIZES = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KIB": 1024, "MIB": MIB, "GIB": GIB}
_SPANS = {"": 1.0, "ms": 0.001, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def setting_value(key: str, kind: str, value: Any) -> Any:
    """Return `value` as its kind.

    Raises:
        SettingsError: it is not of that kind or out of range.
    """
    try:
        return _READERS[kind](value)
    except (TypeError, ValueError, OverflowError) as error:
        given = "cannot be" if kind in UNSHOWN or kind == "requirements" else f"is {value!r}"
        raise SettingsError(f"{key} {given}: {error}.", key=key) from None


def _count(value: Any) -> int | None:
    if value is None or value == "none":
        return None
    number = _whole(value)
    if number < 1:
        raise ValueError("it must be at least 1")
    return number


def _required(reader: Any) -> Any:
    def read(value: Any) -> Any:
        result = reader(value)
        if result is None:
            raise ValueError("a value is needed")
        return result

    return read


def _optional(reader: Any) -> Any:
    return lambda value: None if value is None or value == "none" else reader(value)


def _span(value: Any) -> float | None:
    if value is None or value == "none":
        return None
    seconds = _with_unit(value, _SPANS, "seconds, such as 90, '90s', '15min' or '1h'")
    if not seconds >= 0 or math.isnan(seconds):
        raise ValueError("it must be 0 or more")
    return seconds


def _age(value: Any) -> float | None:
    age = _span(value)
    if age == 0:
        raise ValueError("it must be more than 0, or 'none': workers would be replaced without end")
    return age


def _size(value: Any) -> int | None:
    if value is None or value == "none":
        return None
    number = _with_unit(value, _SIZES, "bytes, such as 2147483648, '2GiB' or '512MiB'")
    if number < 1:
        raise ValueError("it must be at least 1 byte")
    return int(number)


def _frame(value: Any) -> int:
    size = _size(value)
    if size is None or not FRAME_LEAST <= size <= FRAME_MOST:
        raise ValueError(f"it must be {FRAME_LEAST // MIB} MiB to {FRAME_MOST // MIB} MiB")
    return size


def _with_unit(value: Any, units: Mapping[str, float], expected: str) -> float:
    if isinstance(value, bool):
        raise ValueError(f"it must be {expected}")
    if isinstance(value, int | float):
        return float(value)
    match = re.fullmatch(r"\s*([0-9.]+|inf)\s*([A-Za-z]*)\s*", str(value))
    unit = match.group(2) if match else ""
    by_name = {name.lower(): factor for name, factor in units.items()}
    if match is None or unit.lower() not in by_name:
        raise ValueError(f"it must be {expected}")
    return float(match.group(1)) * by_name[unit.lower()]


def _choice(*allowed: str) -> Any:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"it must be one of {', '.join(map(repr, allowed))}")
        return str(value)

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or "\0" in os.fspath(value):
        raise ValueError("it must be text")
    return str(value)


def _names(value: Any) -> tuple[str, ...]:
    items = [item for item in value.split(",") if item] if isinstance(value, str) else value
    if not isinstance(items, list | tuple | set) or not all(isinstance(item, str) and item.strip() for item in items):
        raise ValueError("it must be a list of names")
    return tuple(item.strip() for item in items)


def _nice(value: Any) -> int:
    number = _whole(value)
    if not 0 <= number <= NICE_MOST:
        raise ValueError(f"it must be 0 to {NICE_MOST}: workers may give way to others, and not the other way round")
    return number


def _cpus(value: Any) -> tuple[int, ...]:
    items = [item for item in value.split(",") if item.strip()] if isinstance(value, str) else value
    if not isinstance(items, list | tuple | set | frozenset | range) or not items:
        raise ValueError("it must be a list of CPUs by number, such as [0, 1]")
    numbers = tuple(sorted({_whole(item) for item in items}))
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("this system cannot bind processes to CPUs; leave it out")
    usable = os.sched_getaffinity(0)
    if not usable.issuperset(numbers):
        raise ValueError(f"this process may run on {', '.join(map(str, sorted(usable)))} only")
    return numbers


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("a whole number is needed")
    try:
        return int(value)
    except ValueError:
        raise ValueError("a whole number is needed") from None


def _budget(value: Any) -> tuple[int, float]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        raise ValueError("it must be (deaths, seconds), such as [5, 30.0]")
    deaths, seconds = _count(parts[0]), _span(parts[1])
    if not deaths or not seconds:
        raise ValueError("it must be (deaths, seconds), both positive")
    return deaths, seconds


def _plain(value: Any) -> dict[str, Any]:
    table = _mapping(value)
    size = len(encode(table, root="it"))  # it crosses to the workers
    if size > OPTIONS_MOST:
        raise ValueError(f"it has {size:,} bytes, the most is {OPTIONS_MOST:,}: name a file that the bridge reads")
    return table


def _variables(value: Any) -> dict[str, str]:
    variables = _mapping(value)
    for name, text in variables.items():
        if not isinstance(text, str) or "\0" in name + text or "=" in name or not name:
            raise ValueError(f"the variable {name!r} must be text without NUL, and its name without '='")
    return variables


def _mapping(value: Any) -> dict[str, Any]:
    value = value or {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("it must be a table with text keys")
    return plain(dict(value))  # type: ignore[no-any-return]


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError("a name has 1 to 64 letters, digits, '_', '-' or '.', and begins with a letter")
    return value


_READERS: dict[str, Any] = {
    "name": _name,
    "count": _required(_count),
    "limit": _count,
    "text": _text,
    "size": _size,
    "frame": _frame,
    "span": _required(_span),
    "age": _age,
    "start": _choice(*get_args(StartMethod)),
    "affinity": _choice(*get_args(Affinity)),
    "lms": _optional(_choice(*get_args(LMPolicy))),
    "budget": _budget,
    "names": _names,
    "requirements": checked_requirements,
    "nice": _nice,
    "cpus": _optional(_cpus),
    "plain": _plain,
    "variables": _variables,
}
