"""Stop a supervisor inside a host application, at the request of a client of its control service."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from ..errors import DspexError
from ..pools.supervisor import Supervisor
from .warm_stop import StopRequest, finish_calls, grace_of

ANSWER_FIRST = 0.1  # seconds: where no thread can be had the loop itself stops, and the client's answer goes out before


class EmbeddedStop:
    """Ends the supervisor, then its service, on a thread of its own; where there is none for it, on the loop's."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        record_end: Callable[[int], None],
        close: Callable[[], None],
        report: Callable[[BaseException], None],
    ) -> None:
        """`record_end(calls cut)` is called before `close()`; `report(error)` if there is no thread."""
        self._supervisor = supervisor
        self._record_end = record_end
        self._close = close
        self._report = report
        self._is_stopping = False
        self._later: SimpleQueue[StopRequest] = SimpleQueue()  # those that come while it stops

    def request(self, grace: float | None) -> None:
        """Begin to stop; a later request may change the grace. On the service's loop."""
        request = StopRequest(grace)
        if self._is_stopping:
            self._later.put(request)
            return
        self._is_stopping = True
        try:
            threading.Thread(target=self._stop, args=(request,), name="dspex-control-stop", daemon=True).start()
        except RuntimeError as error:  # "can't start new thread"
            self._report(error)
            asyncio.get_running_loop().call_later(ANSWER_FIRST, self._stop, request)

    def _stop(self, request: StopRequest) -> None:
        supervisor = self._supervisor
        with contextlib.suppress(DspexError):
            if supervisor.is_running:
                grace = grace_of(supervisor, request.grace)
                self._record_end(finish_calls(supervisor, grace, first=request, next_request=self._next_request))
            supervisor.stop(grace=0.0)
        self._close()

    def _next_request(self, seconds: float) -> StopRequest | None:
        try:
            return self._later.get(timeout=seconds)
        except Empty:
            return None
