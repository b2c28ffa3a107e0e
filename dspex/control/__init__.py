"""The control socket of a running supervisor: its service, and the client of `dspex.connect`.

`Service` answers on a unix socket from one thread of its own; `Client` makes the same calls as a `Supervisor` over it;
`run_files` knows where sockets are and who owns them; `error_messages` carries errors over as the classes that they
are.
Frames and codec are the workers' (`dspex_worker.wire`). Only the same user may connect, and connecting means running
code as that user: the socket is no sandbox. Nothing here changes settings: pools come from configuration alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client, connect
    from .server import Service

__all__ = ["Client", "Service", "connect"]


def __getattr__(name: str) -> Any:
    match name:  # late: a client needs no service, and neither is needed to import the package
        case "Client" | "connect":
            from . import client

            return getattr(client, name)
        case "Service":
            from .server import Service

            return Service
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
