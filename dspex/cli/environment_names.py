"""Tell variables of the environment that begin like DSPex's own and mean nothing to it, with near names."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..config import ENV_PREFIX, PoolConfig

OWN = ("DSPEX_CONFIG", "DSPEX_LM", "DSPEX_RUNTIME_DIR", "DSPEX_SOCKET", "DSPEX_SERVE_TOKEN")
INTERNAL = ("DSPEX_STARTING", "DSPEX_DEPTH", "DSPEX_LIFELINE", "DSPEX_CGROUP", "DSPEX_REPLY_LIMIT_MIB")


@dataclass(frozen=True, slots=True)
class StrangeVariable:
    """A variable that is ignored."""

    name: str
    near: tuple[str, ...]

    def __str__(self) -> str:
        hint = f" Did you mean {' or '.join(self.near)}?" if self.near else ""
        return f"The variable {self.name} means nothing to DSPex and is ignored.{hint}"


def strange_variables(pools: Iterable[str], environ: Mapping[str, str] | None = None) -> list[StrangeVariable]:
    """Return those that are none of DSPex's, nor a setting of one of these pools."""
    environ = os.environ if environ is None else environ
    known = {*OWN, *INTERNAL, *(name for pool in pools for name in setting_variables(pool).values())}
    found = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)
    offered = [name for name in known if name not in INTERNAL]
    return [StrangeVariable(name, tuple(difflib.get_close_matches(name, offered, n=1, cutoff=0.8))) for name in found]


def setting_variables(pool: str) -> dict[str, str]:
    """Return the variable of each setting of a pool."""
    prefix = f"{ENV_PREFIX}{re.sub(r'[^A-Za-z0-9]', '_', pool).upper()}_"
    return {one.name: f"{prefix}{one.name.upper()}" for one in dataclasses.fields(PoolConfig) if one.name != "name"}
