"""The options of `dspex start`, as the process in the terminal and the one in the background have them."""

from __future__ import annotations

from dataclasses import dataclass

from .target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """What `dspex start` is told; `report_fd`: where the command that started it waits for a word."""

    config: str | None
    lm: str | None
    foreground: bool
    grace: float | None
    max_clients: int | None
    log_file: str | None
    http: int | None
    log_level: str
    report_fd: int
    as_json: bool
    target: Target
