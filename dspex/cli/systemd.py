"""Notify systemd: READY=1, STATUS=, RELOADING=1, STOPPING=1, and its watchdog.

The protocol is one datagram per message to $NOTIFY_SOCKET (sd_notify(3)). Without that variable nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Notifier:
    """Reports for this process; the variables are taken out of the environment, so that no child reports for it."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        watchdog = os.environ.pop("WATCHDOG_USEC", "")
        owner = os.environ.pop("WATCHDOG_PID", "")
        is_ours = watchdog.isdecimal() and owner in ("", str(os.getpid()))
        self._interval = int(watchdog) / 2e6 if is_ours else 0.0  # half of what systemd waits for
        self._fed_at = 0.0
        self._status = ""

    @property
    def is_wanted(self) -> bool:
        return bool(self._address)

    def send(self, *assignments: str) -> None:
        """Send assignments such as READY=1; a lost one is no reason to fail."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto("\n".join(assignments).encode(), address)

    def report(self, status: str) -> None:
        """Send a changed status, and feed the watchdog if it is due; from the main loop: a stuck one must starve it."""
        if status != self._status:
            self._status = status
            self.send(f"STATUS={status}")
        now = time.monotonic()
        if self._interval and now - self._fed_at >= min(self._interval, 1.0):
            self._fed_at = now
            self.send("WATCHDOG=1")
