"""Take what workers tell of running calls, for those who see them: `call.seen`. Any thread."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any, Protocol

from ..pools.callbacks import Callback


class Seer(Protocol):
    """Sees one call; an `Observer`."""

    def see(self, told: Mapping[str, Any], worker: str, client: Any) -> None: ...

    def close(self, error: BaseException | None) -> None: ...


class Sights:
    """Who sees which of one supervisor's calls, by the id that came with the call."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._seers: dict[str, Seer] = {}

    @contextlib.contextmanager
    def registered(self, id: str, seer: Seer) -> Generator[None]:
        """Let `seer` see the call of this id for the time of the block."""
        self._seers[id] = seer
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:  # also Ctrl-C and a cancel: what has begun is shown to end
            error = raised
            raise
        finally:
            self._seers.pop(id, None)
            seer.close(error)

    def seen(self, request: Callback) -> None:
        """Answer `call.seen`; what nobody sees any more is dropped."""
        request.require(id=str)
        seer = self._seers.get(request.arguments["id"])
        if seer is not None:
            seer.see(request.arguments, request.outer.worker_name, self._client)
