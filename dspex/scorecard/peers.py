"""The interface of a compared pool, the features that it may lack, and the list of pools.

A peer lives in a host process of its own and is never stopped: the host is killed in the end. So an adapter only has to
start its pool, hand calls in, and say what the pool has no feature for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar


class Need(StrEnum):
    """The features beyond running calls that a case may need of a pool."""

    DEADLINE = "deadline"
    QUEUE_DEADLINE = "deadline that counts from the submission"
    CANCEL_RUNNING = "cancel of running calls"
    MEMORY_CAP = "memory cap"
    QUEUE_LIMIT = "bound on its queue"
    BOOT_CODE = "code at a worker's start"


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """The limits that a case wants of its pool; None is the pool's default. Sizes in bytes."""

    workers: int = 2
    queue_limit: int | None = None
    memory_cap: int | None = None
    can_boot: bool = True


class Peer(ABC):
    """A pool of worker processes, one call at a time in each; its futures are `concurrent.futures`'."""

    distribution: ClassVar[str] = ""  # what pip installs; "" for the standard library
    lacks: ClassVar[Mapping[Need, str]] = {}  # what it has no feature for, in a few words

    @abstractmethod
    def start(self, limits: PeerLimits, folder: Path) -> None:
        """Start the pool; `folder` is the case's own."""

    @abstractmethod
    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        """Hand a call in; `timeout` is given only to pools that do not lack deadlines. May raise what the pool does."""

    def settle(self) -> None:
        """Return once the pool has seen every cancel that was asked for; most see it at once."""
        return


PEERS = {
    "dspex": "dspex.scorecard.peer_adapters:Dspex",
    "ProcessPoolExecutor": "dspex.scorecard.peer_adapters:StandardLibrary",
    "loky": "dspex.scorecard.peer_adapters:Loky",
    "pebble": "dspex.scorecard.peer_adapters:Pebble",
    "anyio.to_process": "dspex.scorecard.peer_adapters:AnyIO",
}


def peer_class(target: str) -> type[Peer]:
    """Return the adapter that "module:Class" names."""
    module, _, name = target.partition(":")
    found: type[Peer] = getattr(importlib.import_module(module), name)
    return found


def version_of(peer: type[Peer]) -> str | None:
    """Return the installed version ("" for the standard library), or None if it is not installed."""
    if not peer.distribution:
        return ""
    try:
        return importlib.metadata.version(peer.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
