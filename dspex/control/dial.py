"""Connect to a control socket and exchange HELLOs: what every client does first. Blocks; needs no thread.

`Hello` is the outcome: the connected socket, what the supervisor reported of itself, and the frames' buffer, which may
hold the beginning of its next message.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspex_worker.wire import FrameBuffer, Malformed, OverLimit, Unencodable

from ..errors import DspexError, EncodeError, FrameTooLarge, NotRunning, ResourceExhausted
from . import error_messages, peer_credentials, protocol
from .protocol import Kind, Message

HELLO_PATIENCE = 5.0  # seconds until the service must have answered the hello
CHUNK = 256 * 1024  # bytes of one read

_NO_DESCRIPTORS = "Close some, or raise its limit (`ulimit -n`)."


@dataclass(frozen=True, slots=True)
class Hello:
    """A connection whose other side is a supervisor of this user."""

    sock: socket.socket
    frames: FrameBuffer
    greeting: dict[str, Any]
    pid: int  # of the listener, as numbered here; 0 where its process cannot be seen
    limit: int  # bytes of one frame


def dial(path: Path, *, role: str, facts: Mapping[str, Any] | None = None) -> Hello:
    """Connect and say hello, with these facts of this side.

    Raises:
        NotRunning: nobody listens there, or it is not a supervisor of this user.
        TooManyClients, ResourceExhausted, ProtocolError: it refuses us; the message says why.
    """
    deadline = time.monotonic() + HELLO_PATIENCE
    sock = _connect(path)
    try:
        pid, uid = peer_credentials.credentials(sock)
        if uid != os.getuid():
            raise NotRunning(
                str(path), f"the listener is uid {uid}, not {os.getuid()}", remedy="Look who put a socket there."
            )
        frames = FrameBuffer(protocol.LIMIT)
        greeting = _greet(sock, frames, path, {**(facts or {}), "role": role}, deadline)
        frames.limit = limit = protocol.limit_in(greeting)
        return Hello(sock, frames, greeting, pid, limit)
    except BaseException:  # also Ctrl-C: nobody else closes it
        sock.close()
        raise


def request_frame(kind: Kind, *fields: object, limit: int = protocol.LIMIT) -> bytes:
    """Return a request's frame.

    Raises:
        EncodeError, FrameTooLarge: the caller's arguments cannot be sent.
    """
    try:
        return protocol.send(kind, *fields, limit=limit)
    except Unencodable as error:
        _, is_argument, below = error.path.partition("['arguments']")  # the caller's own, within the message
        raise EncodeError(f"arguments{below}" if is_argument else error.path, error.type_name, error.reason) from None
    except OverLimit as error:
        raise FrameTooLarge("parent", error.limit, error.actual, what=error.what) from None


# ======================================================================================================================


def _connect(path: Path) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise ResourceExhausted("descriptors", f"this process ({os.getpid()})", remedy=_NO_DESCRIPTORS) from error
    sock.settimeout(HELLO_PATIENCE)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise _unconnected(path, error) from None
    return sock


def _unconnected(path: Path, error: OSError) -> NotRunning:
    if isinstance(error, FileNotFoundError):
        return NotRunning(str(path), "there is no socket")
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return NotRunning(str(path), reason, remedy="It is another user's: ask as that user, or name another --socket.")
    if isinstance(error, TimeoutError | BlockingIOError):
        remedy = "Its process may be stopped or stuck; `dspex stop --now` ends it."
        return NotRunning(str(path), f"the listener took no connection ({reason})", remedy=remedy)
    return NotRunning(str(path), reason)


def _greet(
    sock: socket.socket, frames: FrameBuffer, path: Path, facts: Mapping[str, Any], deadline: float
) -> dict[str, Any]:
    facts = {"pid": os.getpid(), **facts}
    with contextlib.suppress(OSError):  # it may have refused us before it read: its reason can be read still
        sock.sendall(protocol.send(Kind.HELLO, protocol.MAGIC, *protocol.VERSION, facts))
    try:
        return _read_greeting(_first_message(sock, frames, path, deadline))
    except Malformed as error:
        raise NotRunning(str(path), f"what listens there is no DSPex supervisor: {error}") from None
    except OSError as error:
        if isinstance(error, DspexError):
            raise
        raise NotRunning(
            str(path),
            f"the listener did not say hello within {HELLO_PATIENCE:g} s ({error})",
            remedy="Its process may be stopped or stuck; `dspex stop --now` ends it.",
        ) from None


def _first_message(sock: socket.socket, frames: FrameBuffer, path: Path, deadline: float) -> Message:
    while True:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        data = sock.recv(CHUNK)
        if not data:
            raise NotRunning(str(path), "the listener closed the connection without an answer")
        for body in frames.feed(data):
            return protocol.read(body)


def _read_greeting(message: Message) -> dict[str, Any]:
    if message[0] == Kind.ERROR:
        raise error_messages.rebuild(message[2])
    return protocol.hello(message)


@contextlib.contextmanager
def exhaustion_named() -> Generator[None]:
    """Raise our own error that names what the system has run out of for this process."""
    who = f"this process ({os.getpid()}), and a client needs one"
    try:
        yield
    except OSError as error:
        raise ResourceExhausted("descriptors", who, remedy="Raise its limit (`ulimit -n`).") from error
    except RuntimeError as error:  # "can't start new thread"
        remedy = "Raise the limit (`ulimit -u`, pids.max of its control group); `dspex` commands need none."
        raise ResourceExhausted("threads", who, remedy=remedy) from error
