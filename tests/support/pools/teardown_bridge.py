"""A bridge that notes in a file what runs when its worker ends."""

from __future__ import annotations

import atexit
import os
import sqlite3
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dspex_worker.bridge import Bridge, Context, Settings

bridge = Bridge("teardown")
shared = tempfile.TemporaryDirectory()  # made once, where workers are forked
kept: dict[str, Any] = {}


def note(word: str) -> None:
    thread = "main" if threading.current_thread() is threading.main_thread() else "other"
    with Path(kept["path"]).open("a") as file:
        file.write(f"{os.getpid()} {word} {thread}\n")


atexit.register(note, "import")


@bridge.setup
def setup(settings: Settings) -> None:
    kept.update(settings["options"])
    kept["database"] = sqlite3.connect(":memory:")  # only its own thread may close it
    atexit.register(note, "setup")


@bridge.teardown
def first(settings: Settings) -> None:
    kept["database"].close()
    note("first")
    time.sleep(kept.get("seconds", 0.0))


@bridge.teardown
def second(settings: Settings) -> None:
    print("a last word")
    raise SystemExit(7)


@bridge.command()
def has_shared(ctx: Context) -> bool:
    return Path(shared.name).is_dir()


@bridge.command()
def nap(ctx: Context, seconds: float) -> None:
    time.sleep(seconds)
