"""`BranchFlag`: how `run` and `stream` cancel what blocks in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

from ...cancel_flag import CancelFlag
from ...errors import CallCancelled


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
