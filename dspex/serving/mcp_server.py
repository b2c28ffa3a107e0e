"""The programs as tools of an MCP server, over streamable HTTP or standard input and output.

A tool that fails gives its problem as text, with `is_error`: a model can read it and try again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent, Tool
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from ..errors import UnknownName
from .json_text import json_bytes
from .openapi import tool_schema
from .problems import problem_of
from .program_endpoint import ProgramEndpoint
from .program_routes import Bounds
from .request_refused import RequestRefused

PATH = "/mcp"


class MCPTools:
    """An MCP server whose tools are programs."""

    def __init__(self, endpoints: Sequence[ProgramEndpoint], bounds: Bounds, title: str) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._bounds = bounds
        self._server: Server[Any] = Server(title, on_list_tools=self._list, on_call_tool=self._call)
        self._manager: StreamableHTTPSessionManager | None = None

    def routes(self) -> list[BaseRoute]:
        """Return the route of the HTTP transport."""
        return [Route(PATH, _Transport(self), methods=["GET", "POST", "DELETE"])]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Serve requests over HTTP in the block."""
        self._manager = StreamableHTTPSessionManager(self._server, max_request_body_size=self._bounds.body_limit)
        try:
            async with self._manager.run():
                yield
        finally:
            self._manager = None

    async def serve_stdio(self) -> None:
        """Serve on standard input and output until the input ends."""
        async with stdio_server() as (reading, writing):
            await self._server.run(reading, writing, self._server.create_initialization_options())

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request.

        Raises:
            RuntimeError: the application's lifespan does not run.
        """
        if self._manager is None:
            raise RuntimeError("MCP needs the application's lifespan: pass it on where the application is mounted.")
        await self._manager.asgi_app(scope, receive, send)

    async def _list(self, context: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[await _tool(endpoint) for endpoint in self._endpoints.values()])

    async def _call(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        try:
            endpoint = self._endpoints.get(params.name)
            if endpoint is None:
                raise RequestRefused(
                    404, "There is no such tool", str(UnknownName("tool", params.name[:100], self._endpoints))
                )
            with self._bounds.running.admitted():
                asked = self._bounds.calls.asked(_headers_of(context))
                work = self._bounds.running.task(endpoint.ask(params.arguments or {}, asked))
                try:
                    outputs, _ = await work
                finally:
                    work.cancel()
        except Exception as error:  # the model is told its kind, and the log the rest
            text = json.dumps(problem_of(error, program=params.name).to_json())
            return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)
        written = json_bytes(outputs).decode()
        shown = json.loads(written) if isinstance(outputs, dict) else None
        return CallToolResult(content=[TextContent(type="text", text=written)], structured_content=shown)


class _Transport:
    """The HTTP transport as an ASGI application of its own: Starlette takes a function for a request's handler."""

    def __init__(self, tools: MCPTools) -> None:
        self._tools = tools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._tools.handle(scope, receive, send)


async def _tool(endpoint: ProgramEndpoint) -> Tool:
    shape = await endpoint.shape()
    gives = tool_schema(shape.outputs, "serialization")
    return Tool(
        name=endpoint.name,
        description=endpoint.description,
        input_schema=tool_schema(shape.inputs, "validation"),
        output_schema=gives if gives.get("type") == "object" else None,
    )


def _headers_of(context: Any) -> Any:
    """Return what gives the values of a header; over standard input there are none."""
    request = getattr(context, "request", None)
    return request.headers.getlist if request is not None else lambda name: []
