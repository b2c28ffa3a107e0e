"""A second MessagePack decoder, written from the format's specification: slow, plain, and independent of msgpack.

It knows only what the protocol allows; anything else raises ValueError.
"""

from __future__ import annotations

import struct
from typing import Any


def decode(data: bytes) -> Any:
    """Give the one value that `data` holds."""
    value, end = _value(data, 0)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes are left")
    return value


def _value(data: bytes, at: int) -> tuple[Any, int]:
    first = _take(data, at, 1)[0]
    at += 1
    if first <= 0x7F:
        return first, at
    if first >= 0xE0:
        return first - 256, at
    if first <= 0x8F:
        return _map(data, at, first & 0x0F)
    if first <= 0x9F:
        return _array(data, at, first & 0x0F)
    if first <= 0xBF:
        return _text(data, at, first & 0x1F)
    if first in _FIXED:
        return _FIXED[first], at
    if first in _NUMBERS:
        form = struct.Struct(_NUMBERS[first])
        return form.unpack(_take(data, at, form.size))[0], at + form.size
    if first in _SIZED:
        form, read = _SIZED[first]
        size = struct.unpack(form, _take(data, at, struct.calcsize(form)))[0]
        return read(data, at + struct.calcsize(form), size)
    raise ValueError(f"0x{first:02x} begins nothing in this protocol")


def _map(data: bytes, at: int, size: int) -> tuple[dict[str, Any], int]:
    result: dict[str, Any] = {}
    for _ in range(size):
        key, at = _value(data, at)
        if type(key) is not str:
            raise ValueError(f"the key {key!r} is no string")
        result[key], at = _value(data, at)
    return result, at


def _array(data: bytes, at: int, size: int) -> tuple[list[Any], int]:
    result = []
    for _ in range(size):
        item, at = _value(data, at)
        result.append(item)
    return result, at


def _text(data: bytes, at: int, size: int) -> tuple[str, int]:
    return _take(data, at, size).decode("utf-8"), at + size


def _binary(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    return _take(data, at, size), at + size


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ValueError("the data ends too early")
    return data[at : at + size]


_FIXED = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_SIZED = {
    0xC4: (">B", _binary),
    0xC5: (">H", _binary),
    0xC6: (">I", _binary),
    0xD9: (">B", _text),
    0xDA: (">H", _text),
    0xDB: (">I", _text),
    0xDC: (">H", _array),
    0xDD: (">I", _array),
    0xDE: (">H", _map),
    0xDF: (">I", _map),
}
