"""Print results for people and for programs: what the output cannot encode is escaped, and nobody acts on it."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import sys
from typing import Any

from ..terminal_text import inert


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
    is_shown = sys.stdout is not None and sys.stdout.isatty()
    _write(inert(text) if is_shown else text)  # a model's words are not the terminal's commands; a pipe gets them


def print_text(text: str) -> None:
    """Print lines that are colored, and inert already."""
    _write(text + "\n")


def _write(text: str) -> None:
    if sys.stdout is None:  # the shell closed it, as with `>&-`
        raise OSError(errno.EBADF, "standard output is closed")
    if not _can_print(text):
        text = text.encode("ascii", "backslashreplace").decode()
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
