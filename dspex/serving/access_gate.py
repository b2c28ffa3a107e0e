"""Let in who has the token and comes by a known host name; probes need none. An ASGI middleware."""

from __future__ import annotations

import hmac
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import SettingsError
from .problems import problem_of
from .request_refused import RequestRefused

OPEN: Final = ("/livez", "/readyz")
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class AccessGate:
    """The application behind a bearer token, and behind a list of host names.

    A page of another site that a browser shows can have its own name lead to this address; so where the names are known
    others are refused.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, hosts: frozenset[str] | None, open_paths: tuple[str, ...] = OPEN
    ) -> None:
        self._app = app
        self._token = None if token is None else checked_token(token).encode()
        self._hosts = hosts
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            problem = problem_of(refusal)
            await Response(problem.body(), problem.status, problem.response_headers())(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestRefused | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _name_of(headers.get("host", "")) not in self._hosts:
            return RequestRefused(421, "Another host", "This server does not go by the name in the Host header.")
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._token is None or path in self._open_paths:
            return None
        given = headers.getlist("authorization")
        kind, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token):
            return None
        return RequestRefused(
            401, "No valid token", "Send the header Authorization: Bearer TOKEN.", {"www-authenticate": "Bearer"}
        )


def checked_token(token: str) -> str:
    """Return the token without the line's end of a file.

    Raises:
        SettingsError: it is none that a header can hold.
    """
    found = token.strip()
    if not found or not found.isascii() or not found.isprintable() or " " in found:
        raise SettingsError("The token is empty, or holds something else than printable ASCII.", key="token")
    return found


def _name_of(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if port.isdecimal() and name else host).lower()
