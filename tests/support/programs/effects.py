"""A user's module with a side effect that can be counted, as a pool's `imports` would name it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import dspy


class Mailing(dspy.Module):
    """Sends its mail (a line in the file), and dies with its worker after the first one."""

    def __init__(self, signature: Any) -> None:
        super().__init__()
        self.answering = dspy.Predict(signature)

    def forward(self, path: str) -> Any:
        _send(path)
        return self.answering(path=path)


def rewarding(arguments: dict[str, Any], prediction: Any) -> float:
    _send(arguments["path"])
    return 1.0


def _send(path: str) -> None:
    sent = Path(path)
    with sent.open("a") as file:
        file.write("mail sent\n")
    if len(sent.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
