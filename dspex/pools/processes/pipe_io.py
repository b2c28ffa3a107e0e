"""Read and write pipes that never block, without releasing the GIL.

`os.read` and `os.write` release it around the system call, and another thread may keep it for 5 ms before it comes
back: with an engine and an event loop in one process that happens at every reply. A call on a non-blocking descriptor
takes microseconds, so it is made through `ctypes.PyDLL`, which keeps the GIL.
"""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.PyDLL(None, use_errno=True)
_write = _libc.write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_write.restype = ctypes.c_ssize_t
_read = _libc.read
_read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_read.restype = ctypes.c_ssize_t


def write(descriptor: int, data: bytes) -> int:
    """Write what the pipe takes, and return how many bytes that was.

    Raises:
        BlockingIOError: it takes nothing now.
        OSError: nobody reads it any more.
    """
    count: int = _write(descriptor, data, len(data))
    if count < 0:
        raise _error()
    return count


class PipeReader:
    """Reads into a buffer of its own, so that nothing is allocated but what was read. For one thread at a time."""

    def __init__(self, size: int) -> None:
        self._buffer = ctypes.create_string_buffer(size)
        self._view = memoryview(self._buffer)
        self._size = size

    def read(self, descriptor: int) -> bytes:
        """Return what is there, b"" at the end.

        Raises:
            BlockingIOError: there is nothing now.
        """
        count: int = _read(descriptor, self._buffer, self._size)
        if count < 0:
            raise _error()
        return bytes(self._view[:count])


def _error() -> OSError:
    code = ctypes.get_errno()
    if code in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR):
        return BlockingIOError(code, os.strerror(code))
    return OSError(code, os.strerror(code))
