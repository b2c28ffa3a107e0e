"""Unit: every reader of a job's events gets each once, from the start, in threads and on event loops."""

from __future__ import annotations

import asyncio
import threading

from dspex.programs.optimization import job_events
from dspex.programs.optimization.job_events import JobEventLog


def test_readers_get_every_event_once_whenever_they_begin() -> None:
    """unit: one that looks on, one that comes late, one on a loop."""
    log, seen = JobEventLog(), list[str]()
    looking = threading.Thread(target=lambda: seen.extend(event.kind for event in log.read()))
    looking.start()

    async def on_a_loop() -> list[str]:
        async def write() -> None:
            for kind in ("queued", "running", "stage", "message", "candidate", "done"):
                await asyncio.to_thread(log.add, kind, {})
                await asyncio.sleep(0)

        writing = asyncio.ensure_future(write())
        found = [event.kind async for event in log.aread()]
        await writing
        return found

    expected = ["queued", "running", "stage", "message", "candidate", "done"]
    assert asyncio.run(on_a_loop()) == expected == [event.kind for event in log.read()]
    looking.join(5)
    assert seen == expected


def test_of_counts_in_a_row_the_newest_is_kept() -> None:
    """unit: a reader that had the older one gets the newer too."""
    log = JobEventLog()
    log.add("progress", {"examples": 1})
    reader = log.read()
    assert next(reader).facts["examples"] == 1
    log.add("progress", {"examples": 2})
    log.add("heartbeat", {"examples": 3})
    log.add("done", {})
    assert [event.facts.get("examples") for event in reader] == [3, None]
    assert [event.kind for event in log.read()] == ["heartbeat", "done"]


def test_messages_are_bounded() -> None:
    """unit: the oldest go first; everything else stays."""
    log, most = JobEventLog(), job_events.MESSAGES_MOST
    log.add("stage", {})
    for number in range(most + 10):
        log.add("message", {"number": number})
    log.add("stopped", {})
    kept = list(log.read())
    assert len(kept) == most + 2 and kept[0].kind == "stage" and kept[1].facts["number"] == 10
