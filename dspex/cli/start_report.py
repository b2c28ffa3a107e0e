"""Tell the command that started a service in the background what became of it."""

from __future__ import annotations

import json
import os
from typing import Any

from ..errors import SettingsError
from .exit_codes import FAILED, USAGE

REPORT_MOST = 2000  # characters of an error: whole in what a pipe takes at once


class StartReport:
    """Reports to the command that started us in the background; once at most."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ready(self) -> bool:
        """Report success; False if the command that waits for it is gone."""
        return self._write({"ready": True, "pid": os.getpid()})

    def failed(self, error: BaseException) -> None:
        """Report the error and the exit code."""
        code = USAGE if isinstance(error, SettingsError) else FAILED
        self._write({"ready": False, "error": (str(error) or repr(error))[:REPORT_MOST], "code": code})

    def _write(self, facts: dict[str, Any]) -> bool:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return True
        try:
            os.write(descriptor, json.dumps(facts).encode())
        except OSError:  # the command was interrupted or killed
            return False
        finally:
            os.close(descriptor)
        return True
