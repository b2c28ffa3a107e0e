"""The keywords of a call, written once for every object that makes calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from ..errors import UnknownName


class SessionStreamKeywords(TypedDict, total=False):
    """The keywords of a streaming call in a session.

    `timeout` is in seconds and includes the wait in the queue; None means the pool's call_timeout, math.inf none.
    """

    timeout: float | None


class SessionCallKeywords(SessionStreamKeywords, total=False):
    """The keywords of a call in a session; `idempotent=True` lets it run once more if its worker dies."""

    idempotent: bool


class StreamKeywords(SessionStreamKeywords, total=False):
    """The keywords of a streaming call; `session` names the session that it belongs to."""

    session: str | None


class CallKeywords(SessionCallKeywords, StreamKeywords, total=False):
    """The keywords of a call."""


def require_known(options: Mapping[str, Any], shape: Any) -> None:
    """Check the names of a call's options against their TypedDict.

    Raises:
        UnknownName: there is no such option; it lists the near names.
    """
    for name in options:
        if name not in shape.__optional_keys__:
            what = "a streaming call" if "idempotent" not in shape.__optional_keys__ else "a call"
            raise UnknownName("option", name, shape.__optional_keys__, where=what)
