"""`OutputLimit`: how much a worker may write into the log, on either side of the pipe. Pure."""

from __future__ import annotations

from typing import Final

LINES_S: Final = 100  # lines per second, in the long run
BYTES_S: Final = 64 * 1024  # bytes per second
BURST_S: Final = 10.0  # seconds whose share may come at once: 1,000 lines, 640 KiB
NOTICE_S: Final = 1.0  # seconds between notices of what was dropped


class OutputLimit:
    """Lines and bytes per second; what is over is dropped, and counted. One thread at a time."""

    __slots__ = ("_bytes", "_bytes_s", "_lines", "_lines_s", "_noticed", "_then", "dropped_bytes", "dropped_lines")

    def __init__(self, lines_s: float = LINES_S, bytes_s: float = BYTES_S) -> None:
        self._lines_s = lines_s
        self._bytes_s = bytes_s
        self._lines = lines_s * BURST_S
        self._bytes = bytes_s * BURST_S
        self._then = 0.0
        self._noticed = -NOTICE_S
        self.dropped_lines = 0
        self.dropped_bytes = 0

    def has_room(self, now: float) -> bool:
        """Whether anything at all may be written now."""
        passed, self._then = max(0.0, now - self._then), now
        self._lines = min(self._lines + passed * self._lines_s, self._lines_s * BURST_S)
        self._bytes = min(self._bytes + passed * self._bytes_s, self._bytes_s * BURST_S)
        return self._lines >= 1 and self._bytes >= 1

    def admits(self, lines: int, size: int, now: float) -> bool:
        """Take the room for so many lines and bytes; False, and counted as dropped, where there is not enough."""
        if not (self.has_room(now) and lines <= self._lines and size <= self._bytes):
            self.drop(lines, size)
            return False
        self._lines -= lines
        self._bytes -= size
        return True

    def drop(self, lines: int, size: int) -> None:
        """Count what is dropped."""
        self.dropped_lines += lines
        self.dropped_bytes += size

    def notice(self, now: float, pause: float = NOTICE_S) -> str:
        """Return a line that says what was dropped since the last; "" if nothing was, or that was said just now."""
        if not (self.dropped_lines or self.dropped_bytes) or now - self._noticed < pause:
            return ""
        lines, size = self.dropped_lines, self.dropped_bytes
        self.dropped_lines = self.dropped_bytes = 0
        self._noticed = now
        return (
            f"{lines:,} lines of output ({size:,} bytes) were dropped: a worker may write {self._lines_s:,.0f} lines "
            f"and {self._bytes_s:,.0f} bytes per second."
        )
