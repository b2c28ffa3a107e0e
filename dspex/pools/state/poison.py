"""Quarantine calls that kill their workers (C7b). Pure."""

from __future__ import annotations

from typing import Any

from .records import CallRecord

QUARANTINE = 600.0  # seconds after the last kill
KILLS = 2


class Poison:
    """Records which call killed a worker while it ran alone, and which were there when one died (suspects)."""

    def __init__(self) -> None:
        self._kills: dict[str, tuple[int, float]] = {}  # digest: (how many, when the last)
        self._suspects: dict[str, float] = {}
        self.is_quiet = True  # no call is under suspicion, so none needs to be looked at

    def verdict(self, call: CallRecord, now: float) -> dict[str, Any] | None:
        """Return the facts of a refusal; otherwise mark the call if it must run alone."""
        if self.is_quiet:
            return None
        digest = call.digest()
        kills, last = self._kills.get(digest, (0, 0.0))
        until = last + QUARANTINE
        if kills >= KILLS and now < until:
            return {"digest": digest, "strikes": kills, "until": until, "until_s": until - now}
        if self.is_suspect(call) and not call.is_nested:
            call.is_alone = True
        return None

    def count_kill(self, call: CallRecord, now: float) -> bool:
        """Count a worker that ended by itself while the call ran there alone; True if that was once too often."""
        digest = call.digest()
        kills, last = self._kills.get(digest, (0, now))
        self.is_quiet = False
        self._kills[digest] = (kills + 1 if now < last + QUARANTINE else 1, now)
        return self._kills[digest][0] >= KILLS

    def suspect(self, call: CallRecord, now: float) -> None:
        """Suspect a call: its worker ended by itself while it and others ran."""
        self.is_quiet = False
        self._suspects[call.digest()] = now

    def is_suspect(self, call: CallRecord) -> bool:
        digest = call.digest()
        return digest in self._suspects or digest in self._kills

    def clear(self, call: CallRecord) -> None:
        """Clear a call that ran alone and answered."""
        digest = call.digest()
        self._suspects.pop(digest, None)
        self._kills.pop(digest, None)

    def forgive(self, digest: str) -> bool:
        """End a quarantine early; False if there is none."""
        self._suspects.pop(digest, None)
        return self._kills.pop(digest, None) is not None

    def drop_old(self, now: float) -> None:
        """Drop what is too old to count."""
        if not self.is_quiet:
            self._kills = {d: (n, last) for d, (n, last) in self._kills.items() if now < last + QUARANTINE}
            self._suspects = {d: last for d, last in self._suspects.items() if now < last + QUARANTINE}
            self.is_quiet = not (self._kills or self._suspects)

    def in_quarantine(self, now: float) -> dict[str, float]:
        """Return the digests that are refused, with the seconds that are left."""
        return {
            digest: last + QUARANTINE - now
            for digest, (kills, last) in self._kills.items()
            if kills >= KILLS and now < last + QUARANTINE
        }
