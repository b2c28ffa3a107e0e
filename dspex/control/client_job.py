"""A client's handle of one optimization that runs in its supervisor. Everything goes through the client."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ..errors import OptimizationFailed, OptimizationStopped
from ..pools.streams import Stream


class JobAsker(Protocol):
    """The requests that the handle makes through its client."""

    def job_row(self, id: str) -> dict[str, Any]: ...
    def job_events(self, id: str, *, follow: bool = True) -> Stream: ...
    def cancel_job(self, id: str) -> bool: ...
    def job_program(self, id: str) -> dict[str, Any] | None: ...


class ClientJob:
    """An optimization in another process. It goes on whether a client looks or not."""

    def __init__(self, client: JobAsker, id: str) -> None:
        self.id = id
        self._client = client

    @property
    def progress(self) -> dict[str, Any]:
        """How far it is: state, stage, trial, trials, best, baseline, requests, tokens, cost, elapsed and more."""
        return self._client.job_row(self.id)

    @property
    def state(self) -> str:
        """ "queued", "running", "cancelling", and at the end "done", "failed" or "stopped"."""
        return str(self.progress["state"])

    def events(self, *, follow: bool = True) -> Iterator[dict[str, Any]]:
        """Yield what has happened, each {"number", "kind", "at", "facts"}; with `follow` go on until it ends.

        A candidate's facts are without its state: `program` has the best one's.
        """
        with self._client.job_events(self.id, follow=follow) as events:
            yield from events

    def cancel(self) -> bool:
        """End it: waits for language models end, its worker is free, and it keeps its best so far.

        Return whether there was something to cancel.
        """
        return self._client.cancel_job(self.id)

    def wait(self) -> str:
        """Wait until it has ended; return its state."""
        for _ in self.events():
            pass
        return self.state

    def program(self) -> dict[str, Any] | None:
        """Return the best program so far as its file has it; None before there is one."""
        return self._client.job_program(self.id)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Wait until it has ended, and save its program; `dspex.load(path)` reads it.

        Raises:
            OptimizationStopped, OptimizationFailed: it did not come to its end; `program` has its best so far.
        """
        if (state := self.wait()) != "done":
            message = f"The optimization {self.id} {state}: {self.progress['message']}"
            raise OptimizationStopped(message) if state == "stopped" else OptimizationFailed(message)
        document = self.program()
        if document is None:
            raise OptimizationFailed(f"The optimization {self.id} has no program.")
        target = Path(path)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        beside.write_text(json.dumps(document, indent=2), encoding="utf-8")
        beside.replace(target)

    def __repr__(self) -> str:
        return f"<optimization {self.id} of another process>"
