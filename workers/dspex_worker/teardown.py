"""Tear a worker down at a planned end: what its bridge registered, then what is registered with `atexit`.

On the main thread, where the setups ran. The supervisor bounds the time (`teardown_timeout`) and kills what takes
longer; a worker that is killed, or dies, is not torn down.
"""

from __future__ import annotations

import atexit
import contextlib
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from .bridge import Bridge, Settings
from .exits import leave
from .output_log import OutputLog

TO_MAIN = signal.SIGRTMAX - 4  # brings the main thread here, wherever it waits


class Teardown:
    """The end of one worker's life. Made on the main thread; `begin` comes from any, when no call runs any more."""

    def __init__(self, bridge: Bridge, settings: Settings, output: OutputLog) -> None:
        self._bridge = bridge
        self._settings = settings
        self._output = output
        self._has_begun = False
        signal.signal(TO_MAIN, self._on_signal)

    def begin(self) -> None:
        """Tear down and end the process: here on the main thread, else there, while the caller goes on."""
        if self._has_begun:
            return
        self._has_begun = True
        main = threading.main_thread()
        if threading.current_thread() is main:
            self._run()
        elif main.ident is not None:
            signal.pthread_kill(main.ident, TO_MAIN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._has_begun:
            self._run()

    def _run(self) -> None:
        signal.signal(TO_MAIN, signal.SIG_IGN)
        for function in reversed(self._bridge.teardowns):
            _call(partial(function, self._settings))
        _call(atexit._run_exitfuncs)
        with contextlib.suppress(BaseException):  # user code may have closed them
            sys.stdout.flush()
        self._output.end_call(0)
        leave(0)


def keep_finalizers_from_workers() -> None:
    """In the fork server, once it has imported: no worker runs the finalizers of what all of them share.

    `weakref.finalize` runs at exit whoever made it: the first worker that ends would remove a temporary folder that a
    module made when it was imported.
    """
    registry: dict[Any, Any] = getattr(weakref.finalize, "_registry", {})
    for finalizer in tuple(registry):
        finalizer.atexit = False


def _call(function: Callable[[], object]) -> None:
    """Call what may raise anything: the others come all the same."""
    try:
        function()
    except BaseException:  # also SystemExit: the worker is ending, and the log says what went wrong
        with contextlib.suppress(BaseException):  # user code may have closed stderr
            sys.stderr.write(f"A teardown failed.\n{traceback.format_exc()}")
