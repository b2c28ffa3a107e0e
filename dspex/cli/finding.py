"""Which supervisor a command means, and the two ways in which results are printed."""

from __future__ import annotations

import argparse
import base64
import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..control.client import Client


def connect(options: argparse.Namespace) -> Client:
    """Give a client of the supervisor that `--name` or `--socket` names.

    Raises:
        NotRunning: nobody answers there.
    """
    from ..control.client import connect

    return connect(options.socket, name=options.name)


def socket_of(options: argparse.Namespace) -> Path:
    """Give the socket that `--name`, `--socket` or the environment names."""
    import os

    from ..control import runfiles

    own = options.socket or (os.environ.get(runfiles.SOCKET_VARIABLE) if options.name is None else None)
    return runfiles.checked_path(Path(own)) if own else runfiles.socket_path(options.name or runfiles.DEFAULT_NAME)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a wire value; bytes become {"base64": text}."""
    print_line(json.dumps(value, indent=indent, ensure_ascii=False, default=_bytes))


def print_line(text: str) -> None:
    """Print one line now, also into a pipe."""
    if sys.stdout is None:  # the shell closed it, as with `>&-`
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return repr(value)
