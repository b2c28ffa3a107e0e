"""Give calls their turns, so that those who share a pool are served alike. Pure.

Each share (a client of the control socket; this process itself is one) has a call in every round, as in start-time fair
queueing (Goyal, Vin and Cheng, 1996): the first call of a share that had none comes into the round that is being
served, its next ones into the rounds behind it. So a share with a thousand queued calls delays another's first by one
call, and a share that is alone is served in the order in which its calls came.
"""

from __future__ import annotations

from .records import CallRecord

NUMBERS = 32  # bits below the round, which tell the turns of one round apart
SHARES_MOST = 256  # that are remembered before those that wait for nothing are forgotten


class Turns:
    """The turns of one pool's calls: whole numbers, the lowest is served first."""

    def __init__(self) -> None:
        self._round = 0  # that is being served
        self._last: dict[str, int] = {}  # the last round in which a share has a call
        self._given = 0

    def give(self, share: str) -> int:
        """Return the turn of a share's next call; no two calls have one."""
        self._given += 1
        turn = max(self._round, self._last.get(share, 0)) + 1
        self._last[share] = turn
        if len(self._last) > SHARES_MOST:
            self._last = {name: last for name, last in self._last.items() if last > self._round}
        return turn << NUMBERS | (self._given & (1 << NUMBERS) - 1)

    def served(self, call: CallRecord) -> None:
        """Note that the call is sent: its round is being served."""
        if call.turn >> NUMBERS > self._round:
            self._round = call.turn >> NUMBERS
