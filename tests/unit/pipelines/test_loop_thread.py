"""unit: the event loop in a thread that pipelines, callbacks and the scorecard share."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from dspex.loop_thread import LoopThread


async def forever(started: threading.Event, ended: threading.Event) -> None:
    try:
        started.set()
        await asyncio.sleep(3600)
    finally:
        ended.set()


def test_coroutines_run_on_one_loop_until_it_is_stopped() -> None:
    """unit: what still runs is cancelled, and the next use starts another loop."""
    loops, started, ended = LoopThread("test-loop"), threading.Event(), threading.Event()
    first = loops.running()
    assert loops.running() is first and loops.submit(asyncio.sleep(0, "slept")).result(10) == "slept"
    future = loops.submit(forever(started, ended))
    assert started.wait(10)
    loops.stop()
    loops.join()
    assert ended.is_set() and future.cancelled() and first.is_closed()
    assert loops.running() is not first
    loops.stop()
    loops.stop()
    loops.join()


def test_a_collected_loop_ends() -> None:
    """unit: nobody need stop it."""
    loops, started, ended = LoopThread("test-loop"), threading.Event(), threading.Event()
    loops.submit(forever(started, ended))
    assert started.wait(10)
    del loops
    gc.collect()
    assert ended.wait(10)


def test_a_loop_without_a_thread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: and leaves no loop behind."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loops = LoopThread("test-loop")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            loops.running()
    assert loops.submit(asyncio.sleep(0, 1)).result(10) == 1
    loops.stop()
    loops.join()
