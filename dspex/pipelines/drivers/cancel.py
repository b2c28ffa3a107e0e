"""A cancel flag: one thread sets it, others wake up; how `run` and `stream` cancel what blocks in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator

from ...errors import CallCancelled


class CancelFlag:
    """Set once a run's step is not wanted any more; calls what can stop it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.is_set = False

    def set(self) -> None:
        with self._lock:
            self.is_set = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_set(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when it is set, or now if it is; return a function that takes that back."""
        with self._lock:
            if not self.is_set:
                self._callbacks.append(callback)
                return lambda: self._discard(callback)
        callback()
        return _nothing

    def _discard(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


class BranchFlag(CancelFlag):
    """The flag of a run, or of the branches of a parallel step; one made `under` another is set with it."""

    def __init__(self, under: CancelFlag | None = None) -> None:
        super().__init__()
        self._unlink = under.on_set(self.set) if under is not None else None

    def check(self) -> None:
        """Raise CallCancelled if it is set."""
        if self.is_set:
            raise cancelled()

    @contextlib.contextmanager
    def calling(self, callback: Callable[[], None]) -> Generator[None]:
        """`on_set` for the length of a block."""
        discard = self.on_set(callback)
        try:
            yield
        finally:
            discard()

    def close(self) -> None:
        """Let go of the flag above it."""
        if self._unlink is not None:
            self._unlink()


def cancelled() -> CallCancelled:
    return CallCancelled("The pipeline's run was cancelled here: a sibling branch failed, or nobody reads its stream.")


def _nothing() -> None:
    """Do nothing: the flag is set already."""
