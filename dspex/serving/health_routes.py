"""`/livez`, `/readyz` and `/metrics`: what watches a server asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from .running_calls import RunningCalls

NO_METRICS = "Metrics need prometheus_client: pip install prometheus_client.\n"


def health_routes(running: RunningCalls, is_ready: Callable[[], Awaitable[bool]]) -> list[BaseRoute]:
    """Return the routes; `is_ready` says whether the programs' workers can take a call."""

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        status = "stopping" if running.is_draining else "ready" if await is_ready() else "starting"
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


async def metrics(request: Request) -> Response:
    """Answer with all that this process's Prometheus registry holds."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    except ImportError:
        return PlainTextResponse(NO_METRICS, 501)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
