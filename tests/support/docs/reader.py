"""A reader of the pages: pastes a page's blocks into a process, with a scripted model in the place of a real one.

Owns one folder for each page that is read. What the page shows as a file is there as that file.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dspex.testing import FakeLM
from tests.support.docs import pages
from tests.support.docs.pages import Block

POOL = "[pools.dspy]\nsize = 1\n"  # where a page declares no pools: one worker starts sooner than four
OPTIMIZERS = "[pools.mipro]\nsize = 1\n"  # on pages that optimize
LONGEST_S = 400  # for a page, on a machine that has much else to do
SERVED = {"reference/cli.md"}  # pages whose reader has a service running


@dataclass(frozen=True)
class Outcome:
    """What became of a block: the traceback or "", and what it printed."""

    error: str
    printed: str = ""


@dataclass(frozen=True)
class Reading:
    """What became of a page: its blocks' outcomes by number, the processes that were left, and the log."""

    outcomes: dict[int, Outcome]
    left: list[str]
    log: str


@dataclass
class Reader:
    """Reads each page once, two pages at a time; `model` answers on loopback."""

    model: FakeLM
    folder: Path
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    _read: dict[str, Future[Reading]] = field(default_factory=dict)

    def begin(self, page: str) -> Future[Reading]:
        """Run all blocks of the page in the background, if they have not run yet."""
        if page not in self._read:
            self._read[page] = self._threads.submit(self._paste, page)
        return self._read[page]

    def read(self, page: str) -> Reading:
        """Wait until all blocks of the page have run."""
        return self.begin(page).result()

    def close(self) -> None:
        """Wait for the pages that are being read; begin no other."""
        self._threads.shutdown(cancel_futures=True)

    def outcome(self, block: Block) -> Outcome:
        """What became of one block."""
        reading = self.read(block.page)
        return reading.outcomes.get(block.number) or Outcome(f"the block was not reached:\n{reading.log}")

    def place(self, page: str) -> Path:
        """The page's folder, with the files that it shows."""
        place = self.folder / page.removesuffix(".md")
        if not place.is_dir():
            place.mkdir(parents=True)
            for block in pages.blocks(page):
                if block.is_file:
                    (place / block.title).parent.mkdir(parents=True, exist_ok=True)
                    (place / block.title).write_text(block.text, encoding="utf-8")
        return place

    def environment(self, page: str) -> dict[str, str]:
        """The variables of the page's processes: the model by name, unless the page's own settings name it."""
        place, shown = self.place(page), pages.blocks(page)
        optimizes = any("optimize(" in block.text for block in pages.runnable(page))
        (place / "hidden.toml").write_text(POOL + OPTIMIZERS * optimizes)
        has_lm = any(block.title == "dspex.toml" and "[lm]" in block.text for block in shown)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DSPEX_", "OPENAI_"))},
            "PYTHONPATH": f"{pages.ROOT}{os.pathsep}{pages.ROOT / 'workers'}",
            "DSPEX_RUNTIME_DIR": str(self.folder / "run"),  # short: the path of a socket has 107 bytes at most
            "DSPEX_CONFIG": str(place / "hidden.toml"),
            "OPENAI_BASE_URL": self.model.api_base or "",
            "OPENAI_API_KEY": self.model.api_key or "",
            **({} if has_lm else {"DSPEX_LM": "openai/gpt-4o-mini"}),
        }

    def dspex(self, page: str, *words: str) -> None:
        """Run a `dspex` command in the page's folder; it must end well."""
        done = subprocess.run(
            [sys.executable, "-m", "dspex.cli", *words],
            cwd=self.place(page), env=self.environment(page), capture_output=True, text=True, timeout=LONGEST_S,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stderr)

    def _paste(self, page: str) -> Reading:
        place, environment = self.place(page), self.environment(page)
        report, log = place / "report", place / "log"
        with log.open("w") as output, self._service(page):
            subprocess.run(
                [sys.executable, "-m", "tests.support.docs.run_page", page, str(report)],
                cwd=place, env=environment, stdout=output, stderr=output, timeout=LONGEST_S, check=False,
            )  # fmt: skip
        rows: list[dict[str, Any]] = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
        outcomes = {row["number"]: Outcome(row["error"], row["printed"]) for row in rows}
        return Reading(outcomes, left_in(place), log.read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def _service(self, page: str) -> Iterator[None]:
        """A service beside the pages of those who have one."""
        if page not in SERVED:
            yield
            return
        self.dspex(page, "start", "--daemon", "--config", "dspex.toml")
        try:
            yield
        finally:
            self.dspex(page, "stop")


def left_in(place: Path, patience_s: float = 5.0) -> list[str]:
    """The names of processes that work in this folder; they get some seconds to go away."""
    deadline = time.monotonic() + patience_s
    while found := [process.name() for process in psutil.process_iter() if _works_in(process, place)]:
        if time.monotonic() > deadline:
            break
        threading.Event().wait(0.02)
    return found


def _works_in(process: psutil.Process, place: Path) -> bool:
    try:
        return process.cwd() == str(place)
    except psutil.Error:  # it has gone, or is somebody else's
        return False
