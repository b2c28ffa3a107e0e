"""Which client of the control socket the running code makes a call for. A call keeps the context that it is made in."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

LOCAL: Final = "local"  # the client name of the process that owns the supervisor (S1)

calling_client: ContextVar[str] = ContextVar("dspex_calling_client", default=LOCAL)
