"""The enums and models that parity cases use; imported by the tests and by the DSPy oracle alike."""

from __future__ import annotations

import datetime
import enum
from decimal import Decimal
from typing import Literal

import pydantic


class Color(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"
    RED_AGAIN = "red"  # noqa: PIE796 - an alias, as enums may have


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mood(str, enum.Enum):  # noqa: UP042 - the older kind, which pydantic knows too
    """How someone feels."""

    GOOD = "good"
    BAD = "BAD"


class Item(pydantic.BaseModel):
    """An item of an order."""

    name: str = pydantic.Field(description="what it is called")
    qty: int = pydantic.Field(1, ge=0)
    price: float | None = None


class Order(pydantic.BaseModel):
    items: list[Item]
    color: Color = Color.RED
    level: Level | None = None
    notes: dict[str, str] = {}
    when: datetime.datetime | None = None
    kind: Literal["new", "old"] = "new"


class Money(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", populate_by_name=True)

    amount: Decimal
    unit: str = pydantic.Field("EUR", alias="currency")


class Tree(pydantic.BaseModel):
    label: str
    children: list[Tree] | None = None


NAMES = {kind.__name__: kind for kind in (Color, Level, Mood, Item, Order, Money, Tree)}
