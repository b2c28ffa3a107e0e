"""The wire protocol between a supervisor and its workers: the only definition; both sides import it from here.

`framing` cuts a byte stream into frames, `codec` turns exact values into bytes and back, `messages` names what the
frames say, `shapes` checks what a worker says. Pure code: no descriptor, no clock, no thread.
"""

from .codec import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_ELEMENTS,
    Malformed,
    OverLimit,
    Packed,
    Unencodable,
    decode,
    encode,
)
from .framing import FRAME_LEAST, FRAME_LIMIT, FRAME_MOST, FrameBuffer, frame
from .messages import MAGIC, PROTOCOL, Kind

__all__ = [
    "FRAME_LEAST",
    "FRAME_LIMIT",
    "FRAME_MOST",
    "MAGIC",
    "MAX_CONTAINERS",
    "MAX_DEPTH",
    "MAX_ELEMENTS",
    "PROTOCOL",
    "FrameBuffer",
    "Kind",
    "Malformed",
    "OverLimit",
    "Packed",
    "Unencodable",
    "decode",
    "encode",
    "frame",
]
