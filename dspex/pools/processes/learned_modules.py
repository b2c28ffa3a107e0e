"""Remember which modules of the user's the workers of a pool import at first need, so that successors have them.

The host's calls name them, with the version of their files. A fork server imports those that are known when it starts;
what it could not be warmed with is not tried again in that version. Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

LEARNED_MOST = 256  # modules; what is beyond is imported at first need, by each worker


class LearnedModules:
    """The modules of one pool by name, each with its version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        self._hopeless: set[tuple[str, str]] = set()
        self.served: Mapping[str, str] = {}  # what the fork server that serves was warmed with

    def learn(self, name: str, version: str) -> None:
        """Note a module that a call names."""
        if self._known.get(name) == version:
            return
        with self._lock:
            if name in self._known or len(self._known) < LEARNED_MOST:
                self._known[name] = version

    def to_warm(self) -> dict[str, str]:
        """Return what a fork server is to import."""
        with self._lock:
            return {name: version for name, version in self._known.items() if (name, version) not in self._hopeless}

    @property
    def is_behind(self) -> bool:
        """Whether a new fork server would have more, or newer, than the one that serves."""
        return any(self.served.get(name) != version for name, version in self.to_warm().items())

    def give_up(self, modules: Mapping[str, str]) -> None:
        """Try these no more in these versions: a fork server with them did not come to serve."""
        with self._lock:
            self._hopeless |= set(modules.items()) - set(self.served.items())
