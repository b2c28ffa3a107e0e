"""One request of a client: its pending outcome, and where a stream's chunks go. Any thread."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .remote_call import RemoteCall


class ClientRequest:
    """One request under way. `future` gets its outcome; a stream's chunks go to `on_chunk` first."""

    __slots__ = ("call", "future", "id", "is_sent", "on_chunk", "on_end", "what")

    def __init__(
        self,
        id: int,
        what: str,
        *,
        call: RemoteCall | None = None,
        on_chunk: Callable[[Any], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.id = id
        self.what = what
        self.call = call  # whose callbacks come back here
        self.future: Future[Any] = Future()
        self.is_sent = False  # whole: until then the service cannot have begun it
        self.on_chunk = on_chunk
        self.on_end = on_end

    def wait(self, seconds: float) -> bool:
        """Block until it has ended; False if that took longer."""
        try:
            self.future.exception(None if math.isinf(seconds) else seconds)
        except TimeoutError:
            return self.future.done()
        return True

    def resolve(self, value: Any = None, error: BaseException | None = None, notes: Any = None) -> None:
        """Set the outcome unless there is one; a caller that went away has cancelled its future."""
        if self.call is not None:
            self.call.end(value, notes)
        with contextlib.suppress(InvalidStateError):
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(value)
        if self.on_end is not None:
            self.on_end()
