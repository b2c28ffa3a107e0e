"""`metrics_app`: the metrics of a supervisor as an application, for ASGI and for WSGI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency

if TYPE_CHECKING:
    from ..pools.supervisor import Supervisor


class MetricsApp:
    """Answers with metrics, whatever the path: an ASGI application, whose `wsgi` is a WSGI one."""

    def __init__(self, registry: Any) -> None:
        from prometheus_client import make_asgi_app, make_wsgi_app

        self.wsgi: Callable[..., Any] = make_wsgi_app(registry)
        self._asgi = make_asgi_app(registry)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._asgi(scope, receive, send)
        elif scope["type"] == "lifespan":  # of a server that runs nothing else; there is nothing to start or stop
            for end in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{end}.complete"})


def metrics_app(supervisor: Any = None, *, registry: Any = None) -> MetricsApp:
    """Return an application that answers with a supervisor's Prometheus metrics (default: the default supervisor's).

        app.mount("/metrics", dspex.metrics_app(supervisor))  # FastAPI, Starlette: ASGI
        DispatcherMiddleware(app, {"/metrics": dspex.metrics_app(supervisor).wsgi})  # Flask, Django: WSGI

    `registry` (default: `prometheus_client.REGISTRY`, with all that your program counts) is what is answered from;
    calls and events are counted from now on.

    Raises:
        MissingDependency: `prometheus_client` is not installed: the extra `metrics`.
        SettingsError: the supervisor is a client of a service.
    """
    register_metrics(supervisor, registry=registry)
    from prometheus_client import REGISTRY

    return MetricsApp(REGISTRY if registry is None else registry)


def register_metrics(supervisor: Any = None, *, registry: Any = None) -> None:
    """Let a Prometheus registry (default: `prometheus_client.REGISTRY`) show a supervisor's metrics.

    Its calls and events are counted from now on until it stops (default: the default supervisor's); registering it
    again changes nothing. The pools of several supervisors in one registry should differ in their names: of two of one
    name the one that was registered first is shown.

    Raises:
        MissingDependency: `prometheus_client` is not installed: the extra `metrics`.
        SettingsError: the supervisor is a client of a service.
    """
    try:
        from .collector import register
    except ImportError as error:
        raise MissingDependency(
            "Metrics need prometheus_client: pip install 'dspex[metrics]'.",
            package="prometheus_client",
            extra="metrics",
        ) from error
    register(supervisor, registry)


def register_if_installed(supervisors: Iterable[Supervisor]) -> None:
    """Register supervisors, none of them included, where the default registry is there to be asked."""
    try:
        from .collector import collector_of
    except ImportError:
        return
    collector = collector_of(None)
    for supervisor in supervisors:
        collector.watch(supervisor)
