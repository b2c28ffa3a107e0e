"""Put the application together: routes, lifespan, the gate before them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..errors import UnknownName
from ..programs.calling.program import Program
from .access_gate import AccessGate, checked_token
from .call_limits import CallLimits
from .health_routes import health_routes
from .openapi import openapi
from .problems import problem_of
from .program_endpoint import ProgramEndpoint
from .program_routes import Bounds, program_routes
from .request_refused import RequestRefused
from .running_calls import RunningCalls
from .used_workers import UsedWorkers


@dataclass(frozen=True, slots=True)
class Settings:
    """How the application serves."""

    calls: CallLimits
    token: str | None
    request_limit: int
    batch_limit: int
    body_limit: int
    hosts: frozenset[str] | None
    has_mcp: bool
    title: str
    version: str


def application(programs: Mapping[str, Program[Any]], settings: Settings) -> Starlette:
    """Return the application; `app.state` has its `running` calls and its MCP `tools`.

    Raises:
        SettingsError: a program or the token cannot be.
    """
    if settings.token is not None:
        checked_token(settings.token)
    endpoints = [ProgramEndpoint(name, program) for name, program in programs.items()]
    bounds = Bounds(settings.calls, RunningCalls(settings.request_limit), settings.body_limit, settings.batch_limit)
    workers = UsedWorkers(tuple(programs.values()))
    described = _Described(endpoints, bounds, settings)
    routes: list[BaseRoute] = [
        *health_routes(bounds.running, workers.are_ready),
        Route("/openapi.json", described.show),
    ]
    for endpoint in endpoints:
        routes += program_routes(endpoint, bounds)
    tools = None
    if settings.has_mcp:
        from .mcp_server import MCPTools

        tools = MCPTools(endpoints, bounds, settings.title)
        routes += tools.routes()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(workers)
            for endpoint in endpoints:
                await endpoint.shape()
            if tools is not None:
                await stack.enter_async_context(tools.running())
            yield

    async def refused(request: Request, error: Exception) -> Response:
        return _refused(request, error, list(programs))

    gate = Middleware(AccessGate, token=settings.token, hosts=settings.hosts)  # type: ignore[arg-type, unused-ignore]
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[gate], exception_handlers={HTTPException: refused})
    app.state.running, app.state.tools = bounds.running, tools
    return app


class _Described:
    """The OpenAPI document, made at its first request: a program without a signature is described by a worker."""

    def __init__(self, endpoints: list[ProgramEndpoint], bounds: Bounds, settings: Settings) -> None:
        self._endpoints = endpoints
        self._bounds = bounds
        self._settings = settings
        self._document: dict[str, Any] | None = None

    async def show(self, request: Request) -> Response:
        if self._document is None:
            shapes = [await endpoint.shape() for endpoint in self._endpoints]
            self._document = openapi(
                self._endpoints,
                shapes,
                self._bounds,
                title=self._settings.title,
                version=self._settings.version,
                has_token=self._settings.token is not None,
            )
        root = request.scope.get("root_path", "")
        return JSONResponse({**self._document, **({"servers": [{"url": root}]} if root else {})})


def _refused(request: Request, error: Exception, programs: list[str]) -> Response:
    """Return the answer to a path or method that there is not."""
    status = getattr(error, "status_code", 404)
    headers = dict(getattr(error, "headers", None) or {})
    if status == 404:
        name = request.url.path.strip("/").rpartition("/")[2]
        refusal = RequestRefused(404, "There is no such path", str(UnknownName("program", name[:100], programs)))
    else:
        allowed = headers.get("Allow") or headers.get("allow") or "POST"
        refusal = RequestRefused(status, "Another method", f"This path takes {allowed}.", headers)
    problem = problem_of(refusal)
    return Response(problem.body(), problem.status, problem.response_headers())
