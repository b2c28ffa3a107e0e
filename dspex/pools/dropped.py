"""End a supervisor that was dropped without a stop: a notebook's cell that ran again, `del supervisor`.

A finalizer runs wherever the last reference went, also on the engine's thread and under locks. So it takes none: it
leaves the work to the engine, which ends the workers by their lifelines and then itself.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Sequence
from functools import partial

from ..events import Bus, Name
from .callback_handlers import CallbackHandlers
from .ownership import Ownership
from .pool_lifecycle import PoolLifecycle
from .processes.engine import Engine


class DroppedEnd:
    """Ends what a supervisor has started once nothing refers to it any more, nor to a pool or a call of it."""

    def __init__(
        self, ownership: Ownership, engine: Engine, bus: Bus, handlers: CallbackHandlers, pools: Sequence[PoolLifecycle]
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._handlers = handlers
        self._left = list(pools)
        self._pid = os.getpid()
        self._finalizer = weakref.finalize(ownership, self._end)
        self._finalizer.atexit = False  # a supervisor's own end at exit is earlier, and in order

    def cancel(self) -> None:
        """It was stopped."""
        self._finalizer.detach()

    def _end(self) -> None:
        if os.getpid() != self._pid:
            return  # the parent's
        names = ", ".join(pool.name for pool in self._left)
        self._engine.call_soon(self._end_pools)
        warnings.warn(
            f"A running Supervisor (pools: {names}) was dropped without stop(); its workers are being ended. Use `with "
            f"Supervisor(...) as supervisor:`, or call stop().",
            ResourceWarning,
            stacklevel=2,
        )

    def _end_pools(self) -> None:
        for pool in tuple(self._left):
            pool.end_now(partial(self._ended, pool))

    def _ended(self, pool: PoolLifecycle) -> None:
        self._left.remove(pool)
        if not self._left:
            self._bus.emit(Name.SUPERVISOR_STOPPED, pid=os.getpid(), reason="dropped")
            self._handlers.stop()
            self._bus.stop()
            self._engine.stop()
