"""Begin this process anew as it was started: the same program, words, folder and environment, under the same pid."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

REPORT = "--report-fd"  # for whoever started us: they have had their word


class Beginning:
    """How the process was started; made before anything of it is changed."""

    def __init__(self) -> None:
        self._words = [sys.executable, *sys.orig_argv[1:]]
        self._environment = dict(os.environ)
        self._folder = Path.cwd()
        self._handling = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def again(self) -> NoReturn:
        """Replace this process; what it had ignored from the start stays ignored, other signals act again.

        Raises:
            OSError: the interpreter is gone.
        """
        os.chdir(self._folder)
        for number, before in self._handling.items():
            signal.signal(number, signal.SIG_IGN if before is signal.SIG_IGN else signal.SIG_DFL)
        os.execve(sys.executable, _without_report(self._words), self._environment)


def _without_report(words: list[str]) -> list[str]:
    if REPORT not in words:
        return words
    at = words.index(REPORT)
    return words[:at] + words[at + 2 :]
