"""Bound a response's body, and join the parts in which it arrives."""

from __future__ import annotations

import functools
import os

from ...errors import LMConfigurationError, LMUnexpectedError

BODY_LIMIT = 16 * 1024 * 1024  # bytes; reading one is some 50 ms in which no other thread runs
BODY_LIMIT_SETTING = "DSPEX_REPLY_LIMIT_MIB"  # of the environment: another limit, in MiB
_MIB_MOST = 4096
_SMALL = 4096  # bytes; parts below it are joined as they arrive: a list of a million takes many times their bytes


@functools.cache  # it is asked for with each response
def body_limit() -> int:
    """Return how many bytes a response's body may have, as it is sent and unpacked.

    Raises:
        LMConfigurationError: the environment's limit is no whole number of MiB, 1 or more.
    """
    given = os.environ.get(BODY_LIMIT_SETTING)
    if not given:
        return BODY_LIMIT
    if not (given.isascii() and given.isdecimal()) or not 1 <= int(given[:9]) <= _MIB_MOST:
        raise LMConfigurationError(
            f"{BODY_LIMIT_SETTING} is {given[:50]!r}; it is a whole number of MiB from 1 to {_MIB_MOST:,}."
        )
    return int(given) * 1024 * 1024


def too_long(limit: int) -> LMUnexpectedError:
    """Return the error for a body over the limit."""
    return LMUnexpectedError(f"The response's body is over {limit:,} bytes ({BODY_LIMIT_SETTING} sets another limit).")


def add_part(parts: list[bytes | bytearray], part: bytes) -> None:
    """Add a part of a body."""
    if len(part) >= _SMALL or not parts:
        parts.append(part)
    elif type(parts[-1]) is bytearray:
        parts[-1] += part
    else:
        parts.append(bytearray(part))
