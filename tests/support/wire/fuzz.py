"""Mutated frames through FrameBuffer and messages.read: nothing but Malformed, no hang, bounded memory.

python -m tests.support.wire.fuzz --seconds 60 [--seed N], or --frames 1000000 instead of a time
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from math import inf
from pathlib import Path
from random import Random, SystemRandom

from dspex_worker.wire import FRAME_LIMIT, FrameBuffer, Malformed, frame, messages

GOLDEN = [bytes.fromhex(g["frame"]) for g in json.loads(Path(__file__).with_name("golden_frames.json").read_text())]
BOMBS = [
    b"\x91" * 60_000,  # nested arrays
    b"\x81\xa1k" * 20_000,  # nested maps
    b"\xdc\xff\xff" + b"\x80" * 0xFFFF,  # many empty maps, below the size where containers are counted
    b"\xdd\x00\x03\x0d\x41" + b"\x90" * 200_001,  # and above it
    (b"\xdc\xff\xff" * 1_000).ljust(65_536, b"\xc0"),  # each claims to hold as much as the whole frame can
    (b"\xdd\x00\x1e\x84\x80" * 500).ljust(70_000, b"\xc0"),
    b"\xdd\x00\x40\x00\x00" + b"\x80" * 0x400000,  # 4 MB of empty maps
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\x7f\xff\xff\xff\xc0",
    b"\xdb\xff\xff\xff\xf0",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x94\x04\x01" + b"\x9f" * 3_000,
]
TOKENS = [bytes([b]) for b in (0x80, 0x8F, 0x90, 0x9F, *range(0xC0, 0xE0))] + [b"\xd6\xff\0\0\0\0", b"\x81\xc4\0\0"]


def run(frames: int, seed: int, *, seconds: float = inf) -> dict[str, int]:
    """Feed so many mutated frames; give how many were refused, read, and left waiting for more bytes."""
    random, until = Random(seed), time.monotonic() + seconds
    counts = {"refused": 0, "read": 0, "incomplete": 0}
    for _ in range(frames):
        counts[_outcome(_mutated(random), random)] += 1
        if time.monotonic() > until:
            break
    return counts


def _outcome(data: bytes, random: Random) -> str:
    buffer = FrameBuffer()
    cut = random.randrange(len(data) + 1)
    outcome = "incomplete"
    try:
        for piece in (data[:cut], data[cut:]):
            for body in buffer.feed(piece):
                messages.read(body)
                outcome = "read"
    except Malformed:
        return "refused"
    if buffer.pending > FRAME_LIMIT + 4:
        raise AssertionError(f"{buffer.pending} bytes wait for a frame")
    return outcome


def _mutated(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.001:
        return frame(random.choice(BOMBS))
    body = bytearray(random.choice(GOLDEN)[4:])
    for _ in range(random.randint(1, 3)):
        _mutate(body, random)
    if roll < 0.1:  # a lie about the length
        return (
            random.choice([0, 1, len(body) + 1, max(0, len(body) - 1), FRAME_LIMIT, 2**32 - 1]).to_bytes(4, "big")
            + body
        )
    return len(body).to_bytes(4, "big") + body


def _mutate(body: bytearray, random: Random) -> None:
    at = random.randrange(len(body) + 1)
    match random.randrange(6):
        case 0 if at < len(body):
            body[at] ^= 1 << random.randrange(8)
        case 1 if at < len(body):
            body[at] = random.randrange(256)
        case 2:
            del body[at:]
        case 3:
            body[at:at] = random.choice(TOKENS)
        case 4:
            other = random.choice(GOLDEN)
            start = random.randrange(len(other))
            body[at : at + random.randrange(9)] = other[start : start + random.randrange(17)]
        case _:
            del body[at : at + random.randrange(1, 5)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10**12)
    parser.add_argument("--seconds", type=float, default=inf)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    options = parser.parse_args()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    if options.frames == 10**12 and options.seconds == inf:
        options.seconds = 60.0
    print(f"seed {options.seed}", flush=True)
    counts = run(options.frames, options.seed, seconds=options.seconds)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{sum(counts.values()):,} frames, seed {options.seed}: {counts}; {time.monotonic() - begun:.1f} s, "
        f"peak RSS grew by {grown / 1024:.1f} MB to {(before + grown) / 1024:.1f} MB"
    )


if __name__ == "__main__":
    main()
