"""Find the supervisor that a command means, and print results in two formats."""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal_text import inert

if TYPE_CHECKING:
    from ..control.command_client import DirectClient


def connect(options: argparse.Namespace) -> DirectClient:
    """Return an operator's connection to the supervisor that `--name` or `--socket` names.

    Raises:
        NotRunning: nobody answers there; it says what is known of it.
    """
    from ..control.protocol import Role

    return _dial(options, Role.OPERATOR)


def connect_to_call(options: argparse.Namespace) -> DirectClient:
    """Return a connection that may make calls: it takes a client's place.

    Raises:
        NotRunning, TooManyClients: nobody answers there, or has a place.
    """
    from ..control.protocol import Role

    return _dial(options, Role.CLIENT)


def socket_of(options: argparse.Namespace) -> Path:
    """Return the socket that `--name`, `--socket` or the environment names."""
    from ..control import run_files

    return run_files.find_socket(options.socket, options.name)


def _dial(options: argparse.Namespace, role: str) -> DirectClient:
    from ..control.command_client import DirectClient
    from ..control.unreachable import explained

    path = socket_of(options)
    with explained(path):
        return DirectClient(path, role=role)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a wire value; bytes become {"base64": text}, and what the output cannot encode is escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=_bytes)
    if not _can_print(text):
        text = json.dumps(value, indent=indent, default=_bytes)
    print_line(text)


def print_line(text: str) -> None:
    """Print one line now, also into a pipe."""
    print_piece(text + "\n")


def print_piece(text: str) -> None:
    """Print text now, without an end of the line."""
    if sys.stdout is None:  # the shell closed it, as with `>&-`
        raise OSError(errno.EBADF, "standard output is closed")
    if not _can_print(text):
        text = text.encode("ascii", "backslashreplace").decode()
    if sys.stdout.isatty():  # a model's words are not the terminal's commands; a pipe gets them as they are
        text = inert(text)
    sys.stdout.write(text)
    sys.stdout.flush()


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def print_error(text: str) -> None:
    """Print one line on standard error; where that is closed or full, the exit code must do."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"dspex: {inert(text)}\n")
            sys.stderr.flush()


def _bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return repr(value)
