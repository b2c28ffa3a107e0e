"""Refuse a connection: send the client an error, then end the stream. On the service's loop."""

from __future__ import annotations

import asyncio
import contextlib

from dspex_worker.wire import OverLimit, Unencodable

from ..errors import DspexError, FrameTooLarge, InvalidInput, ProtocolError, SettingsError, UnavailableError
from . import error_messages, protocol
from .protocol import Kind

REFUSALS = (UnavailableError, SettingsError, InvalidInput)  # of a hello
LAST_WORDS = 1.0  # seconds that a connection which is closed gets to read why


async def refuse(writer: asyncio.StreamWriter, reason: str) -> None:
    """Send the client the reason for which it is not served, and close."""
    await reject(writer, because(reason))


async def reject(writer: asyncio.StreamWriter, error: DspexError) -> None:
    """Send the client the error for which it is not served, and close."""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(refusal(error))
        await asyncio.wait_for(writer.drain(), LAST_WORDS)
    writer.close()


def refusal(error: DspexError) -> bytes:
    """Return the frame that refuses a whole connection."""
    return protocol.send(Kind.ERROR, 0, error_messages.describe(error), None)


def because(reason: str) -> ProtocolError:
    """Return the error for a refusal that has no class of its own."""
    return ProtocolError(f"The supervisor refuses: {reason}.")


def unsendable(error: Unencodable | OverLimit) -> DspexError:
    """Return the error of an answer that does not fit into a frame."""
    if isinstance(error, OverLimit):
        return FrameTooLarge("worker", error.limit, error.actual, what=error.what)
    return ProtocolError(f"The answer cannot be sent: {error}.")
