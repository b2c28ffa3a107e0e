"""Read the values of options: spans, counts and names. Each raises what argparse reports."""

from __future__ import annotations

import argparse
import re


def seconds(text: str) -> float:
    """Return a span: seconds, or such as 500ms, 90s, 15min, 1h."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|inf)\s*(ms|s|min|h)?", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, or such as 500ms, 90s, 15min, 1h")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}[match[2] or "s"]


def names(text: str) -> tuple[str, ...]:
    """Return names that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def positive(text: str) -> int:
    """Return a whole number, 1 or more."""
    if not (number := count(text)):
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def count(text: str) -> int:
    """Return a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, 0 or more")
    return int(text)
