"""Look after a service's socket and run file: what cleans temporary folders, or ends a login, removes them.

On the service's loop; it blocks on small files only.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from ..errors import SettingsError
from ..events import Name
from ..terminal_text import encodable
from . import claims, name_lock
from .claims import Claim

LOOK = 1.0  # seconds between looks


class Upkeep:
    """The upkeep of one claim. `listen_on(listener)` has the service accept from another listener."""

    def __init__(self, claim: Claim, *, listen_on: Callable[[socket.socket], None], emit: Callable[..., Any]) -> None:
        self._claim = claim
        self._listen_on = listen_on
        self._emit = emit
        self._obstacle = ""  # said already

    def look(self) -> None:
        """Put back what is missing, if that can be done; an obstacle is said once."""
        if self._claim.lock is not None:
            name_lock.take_up(self._claim.lock)
        if self._claim.is_whole:
            self._obstacle = ""
            return
        try:
            claims.restore(self._claim)
        except (OSError, SettingsError) as error:
            if str(error) != self._obstacle:
                self._obstacle = str(error)
                self._emit(
                    Name.CONTROL_HINDERED,
                    reason="socket_removed",
                    socket=encodable(str(self._claim.path)),
                    error=encodable(str(error)),
                )
            return
        self._listen_on(self._claim.listener)
        self._emit(Name.CONTROL_RESTORED, socket=encodable(str(self._claim.path)))
