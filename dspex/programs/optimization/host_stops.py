"""Tell a job that ended with its supervisor from one that failed by itself."""

from __future__ import annotations

from ...errors import PoolClosed


def ended_with_host(error: BaseException) -> bool:
    """Return whether the job's supervisor was stopped, so that it could go on from its journal."""
    seen: BaseException | None = error
    for _ in range(5):
        if isinstance(seen, PoolClosed) or getattr(seen, "cause", "") == "stopped":
            return True
        seen = None if seen is None else seen.__cause__ or seen.__context__
    return False
