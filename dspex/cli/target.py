"""Find the supervisor that a command means, and connect to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..control.command_client import DirectClient


@dataclass(frozen=True, slots=True)
class Target:
    """The supervisor that `--name`, `--socket` or the environment names."""

    name: str | None = None
    socket: str | None = None

    @property
    def is_named(self) -> bool:
        """Whether an option names it."""
        return self.name is not None or self.socket is not None

    @property
    def is_expected(self) -> bool:
        """Whether an option or the environment names it."""
        return self.is_named or bool(os.environ.get("DSPEX_SOCKET"))

    @property
    def path(self) -> Path:
        """Its socket."""
        from ..control import run_files

        return run_files.find_socket(self.socket, self.name)

    def connect(self) -> DirectClient:
        """Return an operator's connection.

        Raises:
            NotRunning: nobody answers there; it says what is known of it.
        """
        from ..control.protocol import Role

        return self._dial(Role.OPERATOR)

    def connect_to_call(self) -> DirectClient:
        """Return a connection that may make calls: it takes a client's place.

        Raises:
            NotRunning, TooManyClients: nobody answers there, or has a place.
        """
        from ..control.protocol import Role

        return self._dial(Role.CLIENT)

    def _dial(self, role: str) -> DirectClient:
        from ..control.command_client import DirectClient
        from ..control.unreachable import explained

        path = self.path
        with explained(path):
            return DirectClient(path, role=role)
