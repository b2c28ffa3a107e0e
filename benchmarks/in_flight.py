"""Many calls of a program at the same time, awaited; DSPy's `acall` and DSPex's alike."""

from __future__ import annotations

import asyncio
from typing import Any


async def gathered(program: Any, count: int, in_flight: int) -> None:
    """Await as many calls, so many at a time."""
    todo = iter(range(count))

    async def caller() -> None:
        for number in todo:
            await program.acall(question=f"what is {number}?")

    await asyncio.gather(*(caller() for _ in range(in_flight)))
