"""Read the values of options that click does not know: spans of time, and names."""

from __future__ import annotations

import re
from typing import Any

import click

COUNT = click.IntRange(min=0)
POSITIVE = click.IntRange(min=1)


class SpanType(click.ParamType[float]):
    """Seconds, or such as 500ms, 90s, 15min, 1h."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds.

        Raises:
            click.BadParameter: it is no time.
        """
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|inf)\s*(ms|s|min|h)?", value.strip())
        if match is None:
            self.fail(f"{value!r} is no time: give seconds, or such as 500ms, 90s, 15min, 1h", param, ctx)
        return float(match[1]) * {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}[match[2] or "s"]


class NamesType(click.ParamType[tuple[str, ...]]):
    """Names that are separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return them."""
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())


class AmountType(click.FloatRange):
    """An amount of money: finite, 0 or more."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it.

        Raises:
            click.BadParameter: it is none.
        """
        number: float = super().convert(value, param, ctx)
        if not number < float("inf"):
            self.fail(f"{value!r} is no amount", param, ctx)
        return number


SPAN = SpanType()
NAMES = NamesType()
AMOUNT = AmountType(min=0)
