"""Undo the compression of a body that was asked for without any: gateways compress all the same.

What comes out is bounded by what went in, so that no body of a few bytes fills the memory. gzip and deflate are the
standard library's; br and zstd need the packages brotli (1.2 or later) and zstandard, and without them a response in
one of these is refused by name (`response_check`). One connection at a time.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from ...errors import LMTransportError, LMUnexpectedError

FREE = 16 * 1024 * 1024  # bytes that may come out of anything
RATIO_MOST = 100  # beyond that: times as much as went in; text of real answers shrinks to a fifth or a twentieth
_PIECE = 64 * 1024
_ZSTD_PIECE = 256  # a block of 128 KiB may be written in four bytes


class Decompressor(Protocol):
    """Takes compressed bytes, and gives what they stand for in bounded pieces."""

    def feed(self, data: bytes, take: Callable[[bytes], None]) -> None: ...
    def is_whole(self) -> bool: ...


class ContentDecoder:
    """Decodes one body."""

    __slots__ = ("_decompressor", "_given", "_made", "coding")

    def __init__(self, coding: str, decompressor: Decompressor) -> None:
        self.coding = coding
        self._decompressor = decompressor
        self._given = 0
        self._made = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return what the bytes stand for, in parts.

        Raises:
            LMUnexpectedError: they are not of this encoding, or stand for too much.
        """
        self._given += len(data)
        parts: list[bytes] = []

        def take(part: bytes) -> None:
            self._made += len(part)
            if self._made > max(FREE, self._given * RATIO_MOST):
                raise LMUnexpectedError(
                    f"The response's body unpacks to more than {RATIO_MOST} times its size and {FREE // 2**20} MiB."
                )
            if part:
                parts.append(part)

        try:
            self._decompressor.feed(data, take)
        except (zlib.error, EOFError, ValueError) as error:
            raise self._malformed() from error
        except Exception as error:  # brotli's and zstandard's own, which are named nowhere in common
            if isinstance(error, LMUnexpectedError):
                raise
            raise self._malformed() from error
        return parts

    def end(self) -> None:
        """Note the body's end.

        Raises:
            LMTransportError: it was not whole.
        """
        if self._given and not self._is_whole():
            raise LMTransportError(f"The response ended in the midst of its {self.coding} encoding.")

    def _is_whole(self) -> bool:
        try:
            return self._decompressor.is_whole()
        except Exception:  # brotli's own, once it has failed
            return False

    def _malformed(self) -> LMUnexpectedError:
        return LMUnexpectedError(f"The response's body is not the {self.coding} that its head says.")


def decoder_for(coding: str) -> ContentDecoder | None:
    """Return the decoder of a Content-Encoding; None for one that cannot be undone here."""
    make = _DECOMPRESSORS.get(coding.strip().lower())
    made = None if make is None else make()
    return None if made is None else ContentDecoder(coding.strip().lower(), made)


class _Zlib:
    """gzip, also of several members; deflate with zlib's header and without."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._inflater = zlib.decompressobj(bits)
        self._first: bytes | None = None if bits == _GZIP else b""  # until it is known what deflate is meant

    def feed(self, data: bytes, take: Callable[[bytes], None]) -> None:
        if self._first is not None:
            data = self._first + data
            if len(data) < _ZLIB_HEADER:
                self._first = data
                return
            self._first = None
            if data[0] & 0x0F != zlib.DEFLATED or int.from_bytes(data[:_ZLIB_HEADER]) % 31:
                self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # without a header, as some servers send it
        while data:
            if self._inflater.eof:
                if self._bits != _GZIP:
                    raise ValueError("bytes after the end")
                self._inflater = zlib.decompressobj(self._bits)
            part = self._inflater.decompress(data, _PIECE)
            take(part)
            data = self._inflater.unconsumed_tail or self._inflater.unused_data
            if not data and len(part) == _PIECE and not self._inflater.eof:
                data = self._drained(take)

    def _drained(self, take: Callable[[bytes], None]) -> bytes:
        """Take what is left within the inflater, whose input is used up."""
        while not self._inflater.eof and (part := self._inflater.decompress(b"", _PIECE)):
            take(part)
        return self._inflater.unused_data

    def is_whole(self) -> bool:
        return self._inflater.eof


class _Brotli:
    def __init__(self, library: Any) -> None:
        self._decompressor = library.Decompressor()

    def feed(self, data: bytes, take: Callable[[bytes], None]) -> None:
        part = self._decompressor.process(data, output_buffer_limit=_PIECE)
        while part or not self._decompressor.can_accept_more_data():
            take(part)
            part = self._decompressor.process(b"", output_buffer_limit=_PIECE)

    def is_whole(self) -> bool:
        return bool(self._decompressor.is_finished())


class _Zstd:
    def __init__(self, library: Any) -> None:
        self._decompressor = library.ZstdDecompressor(max_window_size=8 * 1024 * 1024).decompressobj()

    def feed(self, data: bytes, take: Callable[[bytes], None]) -> None:
        for at in range(0, len(data), _ZSTD_PIECE):
            take(self._decompressor.decompress(data[at : at + _ZSTD_PIECE]))

    def is_whole(self) -> bool:
        return bool(self._decompressor.eof)


_GZIP = 16 + zlib.MAX_WBITS
_ZLIB_HEADER = 2  # bytes (RFC 1950)


def _brotli() -> Decompressor | None:
    library = _installed("brotli")
    if library is None or not hasattr(library.Decompressor, "can_accept_more_data"):  # it has no bound then
        return None
    return _Brotli(library)


def _zstd() -> Decompressor | None:
    library = _installed("zstandard")
    return None if library is None else _Zstd(library)


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_DECOMPRESSORS: dict[str, Callable[[], Decompressor | None]] = {
    "gzip": lambda: _Zlib(_GZIP),
    "x-gzip": lambda: _Zlib(_GZIP),
    "deflate": lambda: _Zlib(zlib.MAX_WBITS),
    "br": _brotli,
    "zstd": _zstd,
}
