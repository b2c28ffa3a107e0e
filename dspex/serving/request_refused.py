"""`RequestRefused`: what the server itself refuses, before a program is asked."""

from __future__ import annotations

from collections.abc import Mapping


class RequestRefused(Exception):
    """A request that is refused with this HTTP status; it never leaves the server as an exception."""

    def __init__(self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.title = title
        self.headers = dict(headers or {})
        super().__init__(detail)
