"""What a service tells its clients of its pools, and what they keep of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..pools.pool import Pool


def facts_of(pool: Pool) -> dict[str, Any]:
    """Return what programs ask a pool about: what it runs and imports, where, and how much at a time."""
    config = pool.config
    return {
        "imports": list(config.imports),
        "python": str(config.interpreter),
        "bridge": str(config.bridge),
        "concurrency": config.concurrency,
        "call_timeout": config.call_timeout,
    }


@dataclass(frozen=True, slots=True)
class ServedPoolFacts:
    """The settings of a service's pool, as far as its clients know them."""

    name: str
    imports: tuple[str, ...] = ()
    python: str = ""
    bridge: str = "dspy"
    concurrency: int = 1
    call_timeout: float = 120.0  # seconds
    lms: str | None = None

    @property
    def interpreter(self) -> str:
        return self.python

    @classmethod
    def of(cls, name: str, told: Mapping[str, Any]) -> ServedPoolFacts:
        """Return the facts of a hello."""
        known = {key: told[key] for key in ("python", "bridge", "concurrency", "call_timeout") if key in told}
        return cls(name, tuple(told.get("imports", ())), **known)


@dataclass(frozen=True, slots=True)
class ServedSettings:
    """The settings of a service, as far as its clients know them: none of its tables."""

    source: str
    tables: Mapping[str, Any] = field(default_factory=dict)
    pools: tuple[()] = ()
