"""Read settings: their names, units and defaults, and where they come from.

Every setting is declared once, as a field of `PoolConfig`; the settings page of the docs is generated from it. Values
come from the defaults, a TOML file, the environment and arguments; a later one overrides an earlier one. An error names
the key as it was written there.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

from dspex_worker.wire import FRAME_LIMIT

from .errors import DspexError, SettingsError, UnknownName
from .setting_values import GIB, UNSHOWN, Affinity, LMPolicy, StartMethod, setting_value
from .settings_exposure import warn_if_exposed
from .unshown_values import UnshownOptions, unshown, without_frames
from .virtualenvs import Virtualenv

SHIPPED_BRIDGES = ("dspy", "mipro", "faults")
ENV_PREFIX = "DSPEX_"

TABLES = ("pools", "lm", "lms", "budget", "cache", "control", "clients", "jobs", "log", "http")  # of a settings file


def _setting(default: Any, kind: str, text: str, *, mipro: Any = dataclasses.MISSING, makes: bool = False) -> Any:
    """Declare a setting: its default, how it is read, what it means, and the `mipro` pool's default if another.

    `makes` says that workers are made from it, so that a change of it needs new ones.
    """
    metadata = {"kind": kind, "text": text, "mipro": mipro, "makes": makes}
    return field(default=default, repr=kind not in UNSHOWN, metadata=metadata)


Span = float | str  # seconds, or text such as "90s" or "15min"
Size = int | str  # bytes, or text such as "2GiB"


class PoolSettings(TypedDict, total=False):
    """The keywords of `PoolConfig`, as they may be written; see its fields for what they mean."""

    size: int
    concurrency: int
    bridge: str | os.PathLike[str]
    python: str | os.PathLike[str]
    requirements: Sequence[str]
    start_method: StartMethod
    memory_cap: Size | None
    frame_limit: Size
    affinity: Affinity
    queue_limit: int
    call_timeout: Span
    cancel_grace: Span
    stop_grace: Span
    teardown_timeout: Span
    recycle_after_calls: int | None
    recycle_after_age: Span | None
    recycle_after_memory: Size | None
    session_ttl: Span
    session_limit: int
    session_drain: Span
    startup_timeout: Span
    restart_budget: Sequence[float]
    imports: Sequence[str]
    path: Sequence[str]
    env: Mapping[str, str]
    options: Mapping[str, Any]
    lms: LMPolicy | None
    nice: int
    cpus: Sequence[int] | None


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """One pool's settings. Durations are seconds, sizes bytes (or text such as "2GiB", "90s", "15min").

    Raises:
        UnknownName: a setting that does not exist; `near` lists the closest that do.
        SettingsError: a value that cannot be; `key` says which.
    """

    name: str = _setting("dspy", "name", "the pool's name")
    size: int = _setting(4, "count", "workers", mipro=2)
    concurrency: int = _setting(8, "count", "calls in flight in one worker", mipro=1, makes=True)
    bridge: str = _setting(
        "dspy", "text", "a shipped script's name (dspy, mipro, faults) or a path", mipro="mipro", makes=True
    )
    python: str = _setting(
        sys.executable, "text", "the workers' interpreter; one of another virtualenv needs exec", makes=True
    )
    requirements: tuple[str, ...] = _setting(
        (),
        "requirements",
        "packages of a virtualenv of its own, which `dspex setup` makes with `python`; its workers use exec",
        makes=True,
    )
    start_method: StartMethod = _setting(
        "fork", "start", "fork: from a warm fork server; exec: a fresh interpreter each", makes=True
    )
    memory_cap: int | None = _setting(None, "size", "hard cap for a worker and its children", mipro=2 * GIB, makes=True)
    frame_limit: int = _setting(
        FRAME_LIMIT, "frame", "the largest message to or from a worker, 1 MiB to 1 GiB", makes=True
    )
    affinity: Affinity = _setting("strict_queue", "affinity", "what a session's calls do when their worker is busy")
    queue_limit: int = _setting(1000, "count", "queued calls; one more is PoolSaturated", mipro=100)
    call_timeout: float = _setting(120.0, "span", "a call's deadline, queue wait included", mipro=3600.0)
    cancel_grace: float = _setting(1.0, "span", "from a deadline or cancel to the harsher step")
    stop_grace: float = _setting(10.0, "span", "how long stop() lets running calls go on")
    teardown_timeout: float = _setting(5.0, "span", "how long a worker may take to tear down at a planned end")
    recycle_after_calls: int | None = _setting(None, "limit", "answered calls after which a worker is replaced")
    recycle_after_age: float | None = _setting(3600.0, "age", "age at which a worker is replaced, ±10 %")
    recycle_after_memory: int | None = _setting(
        GIB, "size", "memory of worker and children, as for the cap, at which it is replaced", mipro=2 * GIB * 8 // 10
    )
    session_ttl: float = _setting(3600.0, "span", "from the end of a session's last call until it is dropped")
    session_limit: int = _setting(10_000, "count", "sessions at once")
    session_drain: float = _setting(900.0, "span", "how long a planned stop waits for sessions with state")
    startup_timeout: float = _setting(60.0, "span", "until a worker must be ready")
    restart_budget: tuple[int, float] = _setting(
        (5, 30.0),
        "budget",
        "(deaths, seconds): more deaths of workers that answered under ten calls degrade it",
    )
    imports: tuple[str, ...] = _setting(
        (), "names", "the user's modules whose classes, metrics and tools may be named", makes=True
    )
    path: tuple[str, ...] = _setting((), "names", "folders added to the workers' import path", makes=True)
    env: Mapping[str, str] = _setting((), "variables", "variables for the workers beside the allow-list", makes=True)
    options: Mapping[str, Any] = _setting((), "plain", "plain data for the bridge script", makes=True)
    lms: LMPolicy | None = _setting(
        None,
        "lms",
        "which language models user code in workers may ask for (dspy.LM): any, or only named (configured) ones; "
        "unset: any in a program of your own, named in a service",
        makes=True,
    )
    nice: int = _setting(
        0, "nice", "added to the workers' nice value, 0 to 19: with more they give way to other processes", makes=True
    )
    cpus: tuple[int, ...] | None = _setting(
        None, "cpus", "the CPUs that the workers may run on, by number; unset: as the host", makes=True
    )

    def __init__(self, name: str = "dspy", **settings: Unpack[PoolSettings]) -> None:
        try:
            self._read(UnshownOptions(name=name, **settings))
            self._check()
        except DspexError as error:
            refusal = without_frames(error)
        else:
            return
        del settings  # variables for workers may be keys
        raise refusal

    def _read(self, settings: Mapping[str, Any]) -> None:
        known = {f.name: f for f in dataclasses.fields(PoolConfig)}
        name = settings["name"]
        for key in settings:
            if key not in known:
                raise UnknownName("setting", key, known, where=f"pool {name!r}")
        heavy = settings.get("bridge", name) == "mipro"
        for key, f in known.items():
            value = settings[key] if key in settings else _default(f, heavy=heavy)
            if key == "start_method" and self.requirements and key not in settings:
                value = "exec"
            object.__setattr__(self, key, setting_value(f"pools.{name}.{key}", f.metadata["kind"], value))
        if heavy and "recycle_after_memory" not in settings and self.memory_cap is not None:
            object.__setattr__(self, "recycle_after_memory", self.memory_cap * 8 // 10)

    def _check(self) -> None:
        where = f"pools.{self.name}"
        if self.start_method == "fork" and self.requirements:
            raise SettingsError(
                f"{where}.requirements mean another interpreter; they need start_method = 'exec'.",
                key=f"{where}.start_method",
            )
        if self.start_method == "fork" and self.python != sys.executable:
            raise SettingsError(
                f"{where}.python is another interpreter ({self.python}); it needs start_method = 'exec'.",
                key=f"{where}.start_method",
            )
        if self.bridge not in SHIPPED_BRIDGES and not Path(self.bridge).is_file():
            raise SettingsError(
                f"{where}.bridge is {self.bridge!r}: no such file, and the shipped bridges are "
                f"{', '.join(SHIPPED_BRIDGES)}.",
                key=f"{where}.bridge",
            )

    def changed(self, other: PoolConfig) -> list[str]:
        """Return the names of the settings that `other` has otherwise."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name)]

    def makes_same_workers(self, other: PoolConfig) -> bool:
        """Whether the workers that are there suit `other` too."""
        makes = {f.name for f in dataclasses.fields(self) if f.metadata["makes"]}
        return makes.isdisjoint(self.changed(other))

    @property
    def import_path(self) -> tuple[str, ...]:
        """Where workers look for modules beside their own: `path`, or the host's own path where there are `imports`."""
        if self.path or not self.imports or self.interpreter != sys.executable:
            return self.path
        return tuple(entry or str(Path.cwd()) for entry in sys.path)

    @property
    def virtualenv(self) -> Virtualenv | None:
        """The virtualenv that its requirements mean, be it there or not; None without requirements."""
        return Virtualenv.of(self.requirements, self.python) if self.requirements else None

    @property
    def interpreter(self) -> str:
        """The interpreter that its workers run with: that of its virtualenv, if it has requirements."""
        virtualenv = self.virtualenv
        return self.python if virtualenv is None else virtualenv.interpreter

    @property
    def bridge_path(self) -> Path:
        """Where the bridge script is: the copy that belongs to this `dspex`, or the user's own."""
        if self.bridge not in SHIPPED_BRIDGES:
            return Path(self.bridge).resolve()
        here = Path(__file__).absolute().parent
        in_sources = here.parent / "bridge_scripts" / f"{self.bridge}_bridge.py"
        installed = here / "_bridge_scripts" / in_sources.name  # in a zipapp this is no file by itself
        return in_sources if in_sources.is_file() and not installed.is_file() else installed


class HoldsTables:
    """What of a `Config` is no field: loggers and encoders write down all fields of a dataclass; tables hold keys."""

    __slots__ = ("tables",)

    tables: Mapping[str, Any]


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Config(HoldsTables):
    """A supervisor's settings: its pools, and `tables` that other layers read (those of `TABLES`)."""

    pools: tuple[PoolConfig, ...]
    source: str

    def __init__(
        self, pools: tuple[PoolConfig, ...], tables: Mapping[str, Any] | None = None, source: str = "defaults"
    ) -> None:
        for name, value in (("pools", pools), ("tables", unshown(dict(tables or {}))), ("source", source)):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return (self.pools, self.tables, self.source) == (other.pools, other.tables, other.source)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.tables:
            raise TypeError("Settings with tables may hold keys and are not pickled: load them where they are used.")
        return Config, (self.pools, None, self.source)


def checked_pools(pools: Any) -> tuple[PoolConfig, ...]:
    """Return the pools that code gives a supervisor.

    Raises:
        SettingsError: they are no list of PoolConfigs, or two have one name.
    """
    made = tuple(pools) if isinstance(pools, Iterable) else (pools,)
    if not all(isinstance(pool, PoolConfig) for pool in made):
        raise SettingsError(f"pools is {pools!r}; it is a list of dspex.PoolConfig.", key="pools")
    names = [pool.name for pool in made]
    if not names or len(set(names)) != len(names):
        raise SettingsError(f"pools= needs pools with names of their own, not {names}.", key="pools")
    return made


def load(source: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None) -> Config:
    """Return the settings of a TOML file (or the two default pools), overridden by the environment.

    `[pools.<name>]` tables declare pools; a file without any gets the default `dspy` and `mipro` pools. In the
    environment `DSPEX_<POOL>_<SETTING>` overrides one setting, as in `DSPEX_DSPY_SIZE=8`.

    Raises:
        SettingsError: the file cannot be read, or a key or value in it is wrong; `key` says which.
    """
    if source is not None and not isinstance(source, str | os.PathLike):
        raise SettingsError(f"Settings are a TOML file's path or a dspex.Config, not {source!r}.", key="config")
    tables = {} if source is None else _read_toml(Path(source))
    if source is not None:
        warn_if_exposed(Path(source), tables)
    return config_of_tables(tables, environ, source="defaults" if source is None else str(source))


def config_of_tables(tables: Mapping[str, Any], environ: Mapping[str, str] | None, *, source: str) -> Config:
    """Return the settings that these tables and the environment make; `source` says where the tables are from.

    Raises:
        SettingsError: a key or value is wrong; `key` says which.
    """
    left: dict[str, Any] = unshown(dict(tables))
    for name in left:
        if name not in TABLES:
            raise SettingsError(str(UnknownName("table", name, TABLES, where=source)), key=name)
    declared = left.pop("pools", {})
    if not isinstance(declared, dict):
        raise SettingsError("pools is not a table of pools: write [pools.dspy], for one.", key="pools")
    pools = tuple(_pool(name, settings, environ) for name, settings in (declared or {"dspy": {}, "mipro": {}}).items())
    return Config(pools, left, source)


def _pool(name: str, settings: Any, environ: Mapping[str, str] | None) -> PoolConfig:
    """Return the pool of one [pools.<name>] table."""
    if not isinstance(settings, dict):
        raise SettingsError(f"pools.{name} is not a table of settings.", key=f"pools.{name}")
    if "name" in settings:
        raise SettingsError(f"pools.{name} has its name already: leave `name` out.", key=f"pools.{name}.name")
    try:
        return PoolConfig(name, **{**settings, **_from_environ(name, environ)})
    except UnknownName as error:
        raise SettingsError(str(error), key=f"pools.{name}.{error.name}") from None


def _default(f: dataclasses.Field[Any], *, heavy: bool) -> Any:
    special = f.metadata["mipro"]
    if heavy and special is not dataclasses.MISSING:
        return special
    if f.name == "start_method" and sys.platform != "linux":
        return "exec"
    return f.default


FILE_MOST = 4 * 1024 * 1024  # bytes of a settings file
DOTS_MOST = 1000  # in one line of it


def _read_toml(path: Path) -> dict[str, Any]:
    text = read_settings_text(path)
    try:
        return unshown(tomllib.loads(text))  # type: ignore[no-any-return]
    except RecursionError:
        why = "nests its values too deep to be read"
    except ValueError as error:
        why = f"is not valid TOML: {error}"
    finally:
        del text
    # Not inside of an `except`: the error behind this one would show the file's text, which may hold keys.
    raise SettingsError(f"The settings file {str(path)!r} {why}.")


def read_settings_text(path: Path) -> str:
    """Return the text of a settings file.

    Raises:
        SettingsError: it cannot be read, or is none that tomllib should be given.
    """
    try:
        return _text_of(path)
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except ValueError as error:  # no UTF-8, or no path
        why = f"is not valid TOML: {error}"
    raise SettingsError(f"The settings file {str(path)!r} {why}.")  # outside of `except`, as above


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(FILE_MOST + 1)
    text = content[:FILE_MOST].decode("utf-8-sig")  # some editors begin a file with a byte order mark
    dots = max((line.count(".") for line in text.split("\n")), default=0)
    if len(content) > FILE_MOST or dots > DOTS_MOST:  # tomllib takes the square of a dotted key's length
        raise ValueError(f"it is over {FILE_MOST:,} bytes, or a line of it has over {DOTS_MOST:,} dots")
    return text


def _from_environ(pool: str, environ: Mapping[str, str] | None) -> dict[str, Any]:
    prefix = f"{ENV_PREFIX}{re.sub(r'[^A-Za-z0-9]', '_', pool).upper()}_"
    names = {f.name.upper(): f.name for f in dataclasses.fields(PoolConfig) if f.name != "name"}
    return {
        names[key.removeprefix(prefix)]: value
        for key, value in (os.environ if environ is None else environ).items()
        if key.startswith(prefix) and key.removeprefix(prefix) in names
    }
