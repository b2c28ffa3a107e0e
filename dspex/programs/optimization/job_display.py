"""Show a job's progress: a bar in terminals and notebooks (tqdm's, where it is installed), plain lines elsewhere.

Everything goes to stderr, from the job's thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from .job_events import LAST_KINDS, JobEvent
from .job_progress import JobProgress

TEXT_MOST = 200  # characters of a message
QUIET_S = 30.0  # between plain lines that say nothing new
_TOLD = frozenset({"queued", "running", "stage", "warning", "cancelling", "worker_died", "resumed"})


class JobDisplay(Protocol):
    """Shows one job."""

    def show(self, event: JobEvent, progress: JobProgress) -> None:
        """Show an event; the last one ends the display."""
        ...


def display_of(title: str) -> JobDisplay:
    """Return what suits the process: a bar, or lines."""
    make = _bar_class() if _is_notebook() or _is_terminal() else None
    return LineDisplay(title) if make is None else BarDisplay(title, make)


class LineDisplay:
    """Plain lines: at stages, candidates and warnings, and while it lives now and then."""

    def __init__(self, title: str, write: Callable[[str], object] | None = None) -> None:
        self._title = title
        self._write = write or _to_stderr
        self._shown_at = 0.0

    def show(self, event: JobEvent, progress: JobProgress) -> None:
        now = time.monotonic()
        is_told = event.kind in _TOLD or event.kind in LAST_KINDS or event.kind == "candidate"
        if not is_told and now - self._shown_at < QUIET_S:
            return
        self._shown_at = now
        self._write(f"{self._title}: {_text(event, progress)}")


class BarDisplay:
    """A bar over the optimizer's candidates; of unknown length where it does not say how many there will be."""

    def __init__(self, title: str, make: Any) -> None:
        self._title = title
        self._make = make
        self._bar: Any = None

    def show(self, event: JobEvent, progress: JobProgress) -> None:
        if self._bar is None:
            self._bar = self._make(
                total=progress.trials, desc=self._title, unit="candidate", leave=True, file=sys.stderr
            )
        bar = self._bar
        if progress.trials and bar.total != progress.trials:
            bar.total = progress.trials
        bar.n = progress.trial
        bar.set_postfix_str(progress.line(), refresh=True)
        if event.kind == "warning":
            bar.write(f"{self._title}: {_text(event, progress)}", file=sys.stderr)
        if event.kind in LAST_KINDS:
            bar.set_description_str(f"{self._title} {event.kind}")
            bar.close()


def _text(event: JobEvent, progress: JobProgress) -> str:
    if event.kind == "warning":
        return f"warning: {_first_line(event)}"
    if event.kind in ("worker_died", "resumed", "queued", "cancelling") or event.kind in LAST_KINDS:
        said = event.kind.replace("_", " ")
        about = _first_line(event)
        return f"{said}{f' ({about})' if about else ''}; {progress.line()}"
    return progress.line()


def _first_line(event: JobEvent) -> str:
    """Return the beginning of what an event says: DSPy's messages may be long, and quote prompts."""
    lines = str(event.facts.get("message") or "").splitlines() or [""]
    return lines[0][:TEXT_MOST]


def _to_stderr(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _bar_class() -> Any:
    """Return tqdm's bar, None where it is not installed; a notebook's own needs ipywidgets."""
    if importlib.util.find_spec("tqdm") is None:
        return None
    has_widgets = _is_notebook() and importlib.util.find_spec("ipywidgets") is not None
    return importlib.import_module("tqdm.notebook" if has_widgets else "tqdm").tqdm
