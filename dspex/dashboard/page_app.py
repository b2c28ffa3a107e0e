"""The page as an ASGI application: `/` the document, `/feed` what it shows, and a cancel for those who may operate.

The document holds no secret and is for everybody who comes by a known host name; all else needs the token.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..errors import DspexError
from ..pools.supervisor import Supervisor
from ..serving.access_gate import LOOPBACK, AccessGate, checked_token
from ..serving.event_stream import EventWriter, ServedEvent
from ..serving.problems import problem_of
from ..serving.request_refused import RequestRefused
from ..serving.running_calls import RunningCalls
from .feed import Feed
from .page_file import page_file
from .sources import Source, SupervisorSource

LOOK_S: Final = 0.2  # seconds between looks for a newer picture
PAGES_MOST: Final = 20  # that are open at a time
_HEADERS: Final = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def dashboard(
    source: Supervisor | Source, *, token: str, operate: bool = False, hosts: Iterable[str] = LOOPBACK
) -> Starlette:
    """Return the page of a supervisor as an ASGI application; it looks while its lifespan runs.

    Open it as `http://HOST:PORT/#TOKEN`: what follows `#` is sent to no server. With `operate`, whoever has the token
    may cancel calls. `hosts` are the names by which it may be reached; others are refused, as pages of other sites
    could come by them.

    Raises:
        SettingsError: the token is none that a header can hold.
    """
    token = checked_token(token)
    shown = Pages(SupervisorSource(source) if isinstance(source, Supervisor) else source, operate=operate)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        shown.feed.start()
        try:
            yield
        finally:
            await asyncio.to_thread(shown.feed.stop)

    gate = Middleware(AccessGate, token=token, hosts=frozenset(hosts), open_paths=("/",))  # type: ignore[arg-type, unused-ignore]
    routes = [
        Route("/", _document, methods=["GET"]),
        Route("/feed", PageFeed(shown), methods=["GET"]),
        Route("/calls/{id:int}/cancel", shown.cancel, methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[gate])
    app.state.running = shown.open
    return app


class Pages:
    """The open pages of one source."""

    def __init__(self, source: Source, *, operate: bool) -> None:
        self.feed = Feed(source)
        self.open = RunningCalls(PAGES_MOST)
        self._source = source
        self._may_operate = operate

    async def events(self) -> AsyncIterator[ServedEvent]:
        """Yield each newest picture; a page that reads slowly misses those between."""
        seen = 0
        while not self.feed.is_ended:
            newest = self.feed.newest
            if newest["number"] != seen:
                seen = newest["number"]
                yield ServedEvent("picture", {**newest, "may_operate": self._may_operate})
            await asyncio.sleep(LOOK_S)

    async def cancel(self, request: Request) -> Response:
        """Cancel a call. The token is in a header, which no form of another site can send."""
        if not self._may_operate:
            return _refused(RequestRefused(403, "Only to look at", "This page was started without --operate."))
        try:
            was_live = await asyncio.to_thread(self._source.cancel_call, request.path_params["id"])
        except DspexError as error:
            return _refused(RequestRefused(502, "The supervisor did not do it", str(error)))
        return JSONResponse({"cancelled": was_live}, headers=_HEADERS)


class PageFeed:
    """`/feed`: server-sent events."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._pages.open.admitted():
                writing = self._pages.open.task(EventWriter(send).write(self._pages.events()))
                leaving = asyncio.ensure_future(_left(receive))
                try:
                    await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (writing, leaving):
                        task.cancel()
                    await asyncio.gather(writing, leaving, return_exceptions=True)
        except RequestRefused as refusal:
            await _refused(refusal)(scope, receive, send)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _document(request: Request) -> Response:
    page = page_file()
    headers = {**_HEADERS, "content-security-policy": page.policy}
    return Response(page.html, media_type="text/html; charset=utf-8", headers=headers)


def _refused(refusal: RequestRefused) -> Response:
    problem = problem_of(refusal)
    return Response(problem.body(), problem.status, problem.response_headers())
