"""The exit codes of the `dspex` command."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1  # it is not well, or the call failed
USAGE: Final = 2  # the command line or the settings are wrong
NOT_RUNNING: Final = 3  # no supervisor answers
STARTING: Final = 4  # a pool has no worker yet, and nothing is wrong with it
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
