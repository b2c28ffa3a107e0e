"""Pass on what workers report of running calls (`call.seen`): modules, prompts, tools. Any thread."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any, Protocol

from ..pools.callbacks import Callback


class CallWatcher(Protocol):
    """An `Observer`, which watches one call."""

    def see(self, told: Mapping[str, Any], worker: str, client: Any) -> None: ...

    def close(self, error: BaseException | None) -> None: ...


class CallObservers:
    """The observers of one supervisor's calls, by the id that came with the call."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._watchers: dict[str, CallWatcher] = {}

    @contextlib.contextmanager
    def registered(self, id: str, watcher: CallWatcher) -> Generator[None]:
        """Let `watcher` watch the call of this id for the time of the block."""
        self._watchers[id] = watcher
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:  # also Ctrl-C and a cancel: what has begun is shown to end
            error = raised
            raise
        finally:
            self._watchers.pop(id, None)
            watcher.close(error)

    def seen(self, request: Callback) -> None:
        """Answer `call.seen`; what nobody watches any more is dropped."""
        request.require(id=str)
        watcher = self._watchers.get(request.arguments["id"])
        if watcher is not None:
            watcher.see(request.arguments, request.outer.worker_name, self._client)
