"""The enums, models and other classes that parity cases use; imported by the tests and by the DSPy oracle alike."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import pydantic
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12


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


class Tone(enum.StrEnum):
    SOFT = enum.auto()
    LOUD = 'it\'s "loud"'


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"
    HALF = 0.5
    YES = True  # equal to 1, so it is an alias of ONE
    two = "TWO"


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


class Tight(pydantic.BaseModel):
    """Constrained members,
    and a docstring of two lines."""

    model_config = pydantic.ConfigDict(str_strip_whitespace=True)

    code: Annotated[str, pydantic.Field(pattern="^[A-Z]{2}$", title="The code")]
    share: float = pydantic.Field(0.5, gt=0, lt=1, multiple_of=0.25)
    tags: Annotated[list[Annotated[str, pydantic.Field(max_length=3)]], pydantic.Field(max_length=2)] = []
    pair: tuple[int, Literal["x", "y"]] = (1, "x")


class Checked(pydantic.BaseModel):
    """Validators that change a value, refuse it, or look at all of them."""

    first: str
    second: int = 0
    made: list[str] = pydantic.Field(default_factory=list)

    @pydantic.field_validator("first")
    @classmethod
    def _lower(cls, value: str) -> str:
        if value == "bad":
            raise ValueError("bad is not good")
        return value.lower()

    @pydantic.model_validator(mode="after")
    def _together(self) -> Checked:
        if self.second > 10**6:
            raise ValueError("too much")
        return self


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Owner(pydantic.BaseModel):
    pet: Cat | Dog = pydantic.Field(discriminator="kind")
    extra: Any = None
    maybe: dict[str, list[int | None]] | None = None


class Computed(pydantic.BaseModel):
    side: int = 1

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Words(pydantic.RootModel[list[str]]):
    """A list under a name."""


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


class Row(TypedDict):
    key: str
    value: int | None


class Link(pydantic.BaseModel):
    """Types that have no form of their own in a schema."""

    url: pydantic.HttpUrl
    path: Path | None = None


class Shown(pydantic.BaseModel):
    """What a schema says beside types, and what it does not say."""

    text: str = pydantic.Field("t", title="The text", examples=["e"], json_schema_extra={"x-kind": "short"})
    hidden: int = pydantic.Field(3, exclude=True)
    made: list[str] = pydantic.Field(default_factory=lambda: ["made"])
    old: str | None = pydantic.Field(None, deprecated=True)


class Ranged(pydantic.BaseModel):
    low: int | None = pydantic.Field(None, ge=0)
    tags: list[Annotated[str, pydantic.Field(max_length=2)]] = []


class Nest(pydantic.BaseModel):
    item: Item = Item(name="by default")
    pair: tuple[Item, ...] = ()


class Doubled(pydantic.BaseModel):
    """A validator and a serializer, each of which would show if it ran twice."""

    n: int
    word: str = "w"

    @pydantic.field_validator("n")
    @classmethod
    def _double(cls, value: int) -> int:
        return value * 2

    @pydantic.field_serializer("word")
    def _shout(self, value: str) -> str:
        return f"{value}!"


T = TypeVar("T")


class Box(pydantic.BaseModel, Generic[T]):
    item: T


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Loud(str):
    """A text that shows itself otherwise."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"<{str.__str__(self)}>"


class Degrees(float):
    """A number that shows itself otherwise."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{float(self):g} degrees"


class Rows(list):  # type: ignore[type-arg]
    """A list of a class of its own."""


IntBox = Box[int]

NAMES = {
    kind.__name__: kind
    for kind in (
        *(Color, Level, Mood, Tone, Mixed),
        *(Item, Order, Money, Tree, Tight, Checked, Cat, Dog, Owner, Computed, Words),
        *(Point, Row),
        *(Link, Shown, Ranged, Nest, Doubled, Pair),
    )
} | {"IntBox": IntBox}
