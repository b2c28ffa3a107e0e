"""The routes of one program: `POST /{name}`, `/{name}/stream` and `/{name}/batch`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .connected_client import ClientGone, body_too_large, read_body, while_connected
from .event_stream import EventWriter
from .json_text import json_bytes, read_json
from .problems import problem_of
from .request_refused import RequestRefused

if TYPE_CHECKING:
    from .call_limits import AskedLimits, CallLimits
    from .program_endpoint import ProgramEndpoint
    from .running_calls import RunningCalls

LATE: Final = 1.0  # seconds after a call's own deadline: then the request ends whatever the call does
EVENTS: Final = "text/event-stream"

Answer = Callable[["ProgramEndpoint", Any, "AskedLimits"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What bounds a request."""

    calls: CallLimits
    running: RunningCalls
    body_limit: int  # bytes
    batch_limit: int  # rows


def program_routes(endpoint: ProgramEndpoint, bounds: Bounds) -> list[Route]:
    """Return the routes of one program."""
    kinds = {"": _Once(endpoint, bounds), "/stream": _Stream(endpoint, bounds), "/batch": _Batch(endpoint, bounds)}
    return [Route(f"/{endpoint.name}{end}", kind, methods=["POST"]) for end, kind in kinds.items()]


class _Verb:
    """One way to ask a program, as an ASGI application."""

    def __init__(self, endpoint: ProgramEndpoint, bounds: Bounds) -> None:
        self.endpoint = endpoint
        self.bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = EventWriter(send)
        try:
            headers = Headers(scope=scope)
            with self.bounds.running.admitted():
                asked = self.bounds.calls.asked(headers.getlist)
                given = read_json(await self._body(headers, receive))
                work = self.answer(given, asked, writer, headers)
                response = await while_connected(receive, self.bounds.running, work, asked.timeout + LATE)
        except ClientGone:
            return
        except Exception as error:  # whatever it is, the client is told its kind, and the log the rest
            problem = problem_of(error, program=self.endpoint.name)
            if writer.is_started:
                await writer.fail(problem)
                return
            response = Response(problem.body(), problem.status, problem.response_headers())
        if response is not None:
            await response(scope, receive, send)

    async def answer(self, given: Any, asked: AskedLimits, writer: EventWriter, headers: Headers) -> Response | None:
        """Ask, and return the response; None where the writer has written it."""
        raise NotImplementedError

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RequestRefused(
                415, "The body is not JSON", "Send the inputs as JSON, with content-type: application/json."
            )
        limit, length = self.bounds.body_limit, headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise body_too_large(limit, int(length))
        return await read_body(receive, limit)


class _Once(_Verb):
    async def answer(self, given: Any, asked: AskedLimits, writer: EventWriter, headers: Headers) -> Response | None:
        if EVENTS in headers.get("accept", ""):
            await writer.write(self.endpoint.stream(given, asked))
            return None
        outputs, usage = await self.endpoint.ask(given, asked)
        return _json(outputs, _usage_headers(usage))


class _Stream(_Verb):
    async def answer(self, given: Any, asked: AskedLimits, writer: EventWriter, headers: Headers) -> Response | None:
        await writer.write(self.endpoint.stream(given, asked))
        return None


class _Batch(_Verb):
    async def answer(self, given: Any, asked: AskedLimits, writer: EventWriter, headers: Headers) -> Response | None:
        limit = self.bounds.batch_limit
        if not isinstance(given, list):
            raise RequestRefused(
                422, "The batch is no list", "A batch is a list of objects, each the inputs of one call."
            )
        if len(given) > limit:
            raise RequestRefused(
                422,
                "The batch is too long",
                f"The batch has {len(given):,} rows; the limit is {limit:,}. Send it in parts.",
            )
        return _json(await self.endpoint.ask_each(given, asked))


def _json(value: Any, headers: dict[str, str] | None = None) -> Response:
    own = {"cache-control": "no-store", "x-content-type-options": "nosniff", **(headers or {})}
    return Response(json_bytes(value), headers=own, media_type="application/json")


def _usage_headers(usage: Any) -> dict[str, str]:
    names = {"tokens": "X-DSPex-Tokens", "cost_usd": "X-DSPex-Cost-USD"}
    found = {header: f"{usage[name]:.9g}" for name, header in names.items() if usage.get(name) is not None}
    return {**found, **({"X-DSPex-Cached": "true" if usage["cached"] else "false"} if usage else {})}
