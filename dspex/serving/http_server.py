"""Run an application under uvicorn: from a bound port to a drained end.

the first SIGTERM or SIGINT   /readyz says no, new requests are refused, running ones go on for the grace
the second                    the grace is over
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from ..errors import SettingsError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from .running_calls import RunningCalls

CLOSE_WITHIN: Final = 2  # seconds for connections to close, once no call runs
BACKLOG: Final = 2048

logger = logging.getLogger("dspex")


def bound(host: str, port: int) -> socket.socket:
    """Return a socket of this address, on which nobody listens yet.

    Raises:
        SettingsError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise SettingsError(f"Port {port} of {host} cannot be had: {reason}.", key="port") from error
    return made


def address_of(listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Starlette, listener: socket.socket, *, grace: float, on_ready: Callable[[], object]) -> int:
    """Serve until a signal; return how many requests were cut. Main thread.

    Raises:
        NotConfigured, WorkerBootError, ...: what the programs need cannot be had; nobody was served.
    """
    with contextlib.closing(listener):
        return asyncio.run(_served(app, listener, grace, on_ready))


async def _served(app: Starlette, listener: socket.socket, grace: float, on_ready: Callable[[], object]) -> int:
    config = uvicorn.Config(
        app,
        lifespan="off",  # it is entered here, so that its errors are this function's
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=CLOSE_WITHIN,
    )
    ending = _Ending(app.state.running, grace)
    with ending.signals():
        async with app.router.lifespan_context(app):
            server = _DrainingServer(config, ending, on_ready)
            await server.serve([listener])
    return ending.cut


class _DrainingServer(uvicorn.Server):
    """Uvicorn's server without its handling of signals."""

    def __init__(self, config: uvicorn.Config, ending: _Ending, on_ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        ending.server = self

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


class _Ending:
    """How the server comes to its end."""

    def __init__(self, running: RunningCalls, grace: float) -> None:
        self.server: _DrainingServer | None = None
        self.cut = 0
        self._running = running
        self._grace = grace
        self._draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def signals(self) -> Generator[None]:
        """Heed signals in the block; afterwards the process ends, and a late one must not change how."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, task)
        yield

    def _on_signal(self, task: asyncio.Task[Any] | None) -> None:
        if self.server is None or not self.server.started:
            if task is not None:
                task.cancel()
        elif self._draining is None:
            logger.info("stopping: %d requests run, grace %g s", self._running.count, self._grace)
            self._draining = asyncio.ensure_future(self._drain(self.server))
        else:
            self._running.hurry()

    async def _drain(self, server: _DrainingServer) -> None:
        self.cut = await self._running.drain(self._grace)
        server.should_exit = True
