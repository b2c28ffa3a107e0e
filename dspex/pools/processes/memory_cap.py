"""Make the control groups that hold a pool's workers to their memory cap. Runs on the engine's thread."""

from __future__ import annotations

from pathlib import Path

from dspex_worker.memory import cgroup

from ...config import PoolConfig


class MemoryCap:
    """The control groups of one pool's workers, made when its first fork server under a cap is started."""

    def __init__(self, pool: str) -> None:
        self.problem = ""  # why there are none
        self._pool = pool
        self._branch: Path | None = None

    def branch(self, config: PoolConfig) -> str | None:
        """Return the folder for the groups of a fork server's workers; None if they get none."""
        if config.memory_cap is None:
            return None
        if self._branch is None:
            try:
                self._branch, self.problem = cgroup.claim(cgroup.find()), ""
            except cgroup.CgroupUnusable as error:
                self.problem = str(error)
        return str(self._branch) if self._branch is not None else None

    @property
    def has_groups(self) -> bool:
        return self._branch is not None

    def overrun(self, generation: int, cap: int) -> dict[str, int | str] | None:
        """Return the sizes seen if its group's limit ended this worker; for workers whose fork server is gone (T6)."""
        if self._branch is None:
            return None
        group = cgroup.ControlGroup(self._branch / f"{self._pool}.{generation}")
        is_full, peak = group.was_full(), group.peak() or cap
        group.kill()
        group.remove(patience=0.0)
        return {"seen": peak, "peak": peak, "cap": cap, "layer": "cgroup"} if is_full else None

    def release(self) -> None:
        """Remove the groups; nothing of the pool is alive any more."""
        branch, self._branch = self._branch, None
        if branch is not None:
            cgroup.release(branch)

    def after_fork(self) -> None:
        """In a forked child of the host: they are the parent's."""
        self._branch = None
